//! Pictures as files: a film strip as PNG, an animation as GIF or APNG.
//!
//! Encoding is deterministic. A GIF has one palette of 255 colours for all its frames, and what stays the same from one to
//! the next is left out, so that a still background costs nothing. No panics. An animation of 200 frames of 320 by 240
//! pixels takes seconds and some megabytes.

use super::{Frame, Size};
use crate::report::plot;
use crate::{Error, Result};
use color_quant::NeuQuant;
use resvg::tiny_skia::Pixmap;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

/// Pixels between the frames of a strip, and of the band with their times.
pub const GAP: u32 = 4;
/// Height of the band with the times below a strip.
pub const BAND: u32 = 26;

/// Colours of a GIF; the one that is left of 256 is for what stays the same.
const COLOURS: usize = 255;
const SAME: u8 = 255;
/// Pixels from which the palette is learnt.
const SAMPLE: usize = 200_000;
/// The shortest time that browsers show a frame of a GIF, hundredths of a second.
const SHORTEST: u16 = 2;

/// What a file is, by its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A film strip.
    Png,
    /// An animation in 255 colours.
    Gif,
    /// An animation in all colours.
    Apng,
}

impl Kind {
    /// By the ending of a file's name.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        match ending.as_deref() {
            Some("png") => Ok(Self::Png),
            Some("gif") => Ok(Self::Gif),
            Some("apng") => Ok(Self::Apng),
            _ => Err(Error::usage(format!(
                "--out {}: end it in .png for a film strip, or in .gif or .apng for an animation",
                path.display()
            ))),
        }
    }

    /// Whether the frames follow each other in time.
    pub fn moves(self) -> bool {
        self != Self::Png
    }

    /// The bytes of a file of some frames of a size; the last of an animation is shown until `end`, in the frames' seconds.
    pub fn encode(self, frames: &[Frame], size: Size, end: f64) -> Result<Vec<u8>> {
        match self {
            Self::Png => strip(frames, size),
            Self::Gif => gif(frames, size, end),
            Self::Apng => apng(frames, size, end),
        }
    }
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::failure(format!("cannot encode the pictures ({what}): choose fewer or smaller ones"))
}

/// Frames side by side, the time of each below.
fn strip(frames: &[Frame], (width, height): Size) -> Result<Vec<u8>> {
    let count = frames.len() as u32;
    let whole = count * width + count.saturating_sub(1) * GAP;
    let mut svg = format!(r##"<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{}">"##, height + BAND);
    svg += r##"<rect width="100%" height="100%" fill="#ffffff"/>"##;
    svg += r##"<g font-family="sans-serif" font-size="15" fill="#222222" text-anchor="middle">"##;
    for (place, frame) in (0..).zip(frames) {
        let middle = place * (width + GAP) + width / 2;
        let _ = write!(svg, r#"<text x="{middle}" y="{}">{}</text>"#, height + BAND - 8, seconds(frame.time));
    }
    svg += "</g></svg>";
    let mut picture: Pixmap = plot::pixels(&svg, 1.0)?;
    let row = 4 * whole as usize;
    for (place, frame) in frames.iter().enumerate() {
        let left = 4 * place * (width + GAP) as usize;
        for (y, pixels) in frame.rgb.chunks_exact(3 * width as usize).enumerate() {
            let target = &mut picture.data_mut()[y * row + left..][..4 * width as usize];
            for (to, from) in target.chunks_exact_mut(4).zip(pixels.chunks_exact(3)) {
                to[..3].copy_from_slice(from);
            }
        }
    }
    let rgb: Vec<u8> = picture.data().chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, whole, height + BAND);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&rgb).and_then(|()| writer.finish()).map_err(failed)?;
    Ok(bytes)
}

/// A time with as many digits as it needs, at most two.
fn seconds(time: f64) -> String {
    let text = format!("{time:.2}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// How long each frame is shown, in parts of a second: rounded so that no error adds up.
fn delays(frames: &[Frame], end: f64, per_second: f64) -> Vec<u16> {
    let start = frames.first().map_or(0.0, |frame| frame.time);
    let tick = |time: f64| ((time - start) * per_second).round();
    let ends = frames.iter().skip(1).map(|frame| frame.time).chain([end]);
    frames.iter().zip(ends).map(|(frame, end)| (tick(end) - tick(frame.time)) as u16).collect()
}

fn apng(frames: &[Frame], (width, height): Size, end: f64) -> Result<Vec<u8>> {
    const PER_SECOND: u16 = 1000;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_animated(frames.len() as u32, 0).map_err(failed)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    for (frame, delay) in frames.iter().zip(delays(frames, end, PER_SECOND.into())) {
        let shown = writer.set_frame_delay(delay, PER_SECOND);
        shown.and_then(|()| writer.write_image_data(&frame.rgb)).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

fn gif(frames: &[Frame], (width, height): Size, end: f64) -> Result<Vec<u8>> {
    let (Ok(width), Ok(height)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(failed("a GIF has at most 65535 by 65535 pixels"));
    };
    let mut delays = delays(frames, end, 100.0);
    // The last one's is what is left of the film, and may be shorter.
    if let Some(last) = delays.last_mut() {
        *last = SHORTEST.max(*last);
    }
    if delays.iter().any(|delay| *delay < SHORTEST) {
        return Err(Error::usage(
            "a GIF shows at most 50 frames a second: end --out in .apng, or give fewer with --frames",
        ));
    }
    let palette = palette(frames);
    let mut known: HashMap<[u8; 3], u8> = HashMap::new();
    let mut bytes = Vec::new();
    let colours = palette.color_map_rgb();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &colours).map_err(failed)?;
    encoder.set_repeat(gif::Repeat::Infinite).map_err(failed)?;
    let mut shown: Vec<u8> = Vec::new();
    for (frame, delay) in frames.iter().zip(delays) {
        let mut index = |rgb: &[u8]| {
            let colour = [rgb[0], rgb[1], rgb[2]];
            *known.entry(colour).or_insert_with(|| palette.index_of(&[colour[0], colour[1], colour[2], 255]) as u8)
        };
        let pixels: Vec<u8> = frame.rgb.chunks_exact(3).map(&mut index).collect();
        let new: Vec<u8> = match shown.len() {
            0 => pixels.clone(),
            _ => pixels.iter().zip(&shown).map(|(new, old)| if new == old { SAME } else { *new }).collect(),
        };
        shown = pixels;
        let mut image = gif::Frame::from_indexed_pixels(width, height, new, Some(SAME));
        image.delay = delay;
        image.dispose = gif::DisposalMethod::Keep;
        encoder.write_frame(&image).map_err(failed)?;
    }
    drop(encoder);
    Ok(bytes)
}

/// Colours that fit all frames.
fn palette(frames: &[Frame]) -> NeuQuant {
    let pixels: usize = frames.iter().map(|frame| frame.rgb.len() / 3).sum();
    // An odd stride does not meet the same columns in every row.
    let stride = (pixels / SAMPLE) | 1;
    let all = frames.iter().flat_map(|frame| frame.rgb.chunks_exact(3)).step_by(stride);
    let sample: Vec<u8> = all.flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect();
    NeuQuant::new(1, COLOURS, &sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(times: &[f64]) -> Vec<Frame> {
        times.iter().map(|&time| Frame { time, rgb: vec![(time * 10.0) as u8; 3 * 16 * 16] }).collect()
    }

    #[test]
    fn endings_are_known() {
        for (name, kind) in [("a.png", Kind::Png), ("b/c.GIF", Kind::Gif), ("x.y.apng", Kind::Apng)] {
            assert_eq!(Kind::of(Path::new(name)).unwrap(), kind);
        }
        for name in ["a", "png", "a.jpg", "a.png.bak", ""] {
            assert!(Kind::of(Path::new(name)).unwrap_err().to_string().contains(".apng"), "{name}");
        }
    }

    /// Rounded times do not drift: they add up to the whole.
    #[test]
    fn delays_add_up() {
        let frames = frames(&[1.0, 1.045, 1.09, 1.135, 1.18]);
        let hundredths = delays(&frames, 1.225, 100.0);
        assert_eq!((hundredths.len(), hundredths.iter().sum::<u16>()), (5, 23));
        assert!(hundredths.iter().all(|delay| (4..=5).contains(delay)), "{hundredths:?}");
        assert_eq!(delays(&frames, 1.225, 1000.0), [45; 5]);
    }

    #[test]
    fn a_gif_that_would_play_too_slowly_is_refused() {
        let at = |spacing: f64| frames(&[0.0, 1.0, 2.0, 3.0, 4.0].map(|i| i * spacing));
        let size = (16, 16);
        assert!(Kind::Gif.encode(&at(0.02), size, 0.1).is_ok());
        // Only the last is shorter.
        assert!(Kind::Gif.encode(&at(0.04), size, 0.17).is_ok());
        let refusal = Kind::Gif.encode(&at(0.01), size, 0.05).unwrap_err();
        assert!(refusal.exit_code() == 2 && refusal.to_string().contains(".apng"), "{refusal}");
        assert!(Kind::Apng.encode(&at(0.01), size, 0.05).is_ok());
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0.0, 0.5, 2.0, 10.0, 3.333].map(seconds), ["0 s", "0.5 s", "2 s", "10 s", "3.33 s"]);
    }

    /// The smallest pictures, of one colour each, and the second of them shown as such.
    #[test]
    fn uniform_pictures_are_encoded() {
        let frames = frames(&[0.0, 10.0]);
        for kind in [Kind::Png, Kind::Gif, Kind::Apng] {
            let bytes = kind.encode(&frames, (16, 16), 20.0).unwrap();
            assert_eq!(bytes, kind.encode(&frames, (16, 16), 20.0).unwrap());
        }
        let bytes = gif(&frames, (16, 16), 20.0).unwrap();
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut reader = options.read_info(&bytes[..]).unwrap();
        for frame in &frames {
            let read = reader.read_next_frame().unwrap().unwrap();
            assert!((read.delay, read.buffer[3]) == (1000, 255));
            assert!(read.buffer[0].abs_diff(frame.rgb[0]) < 4, "{} {}", read.buffer[0], frame.rgb[0]);
        }
    }
}
