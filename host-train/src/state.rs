//! What training moves, shown number by number: one description for digest, checkpoint and restore.
//!
//! Everything that learns has a `visit` method that hands its numbers to a [`Visitor`], always in one order and under
//! names of its own. [`Digest`] hashes them, [`Save`] copies them out, [`Load`] puts copies back, so the three cannot
//! disagree about what the state is. Memory that an update works in, and what follows from the configuration, is not
//! state.
//!
//! Deterministic; allocates in `Save` and where a `Load` lengthens a list; no panics.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// Receives the numbers of a state.
pub trait Visitor {
    /// Numbers whose count the configuration fixes.
    fn f32s(&mut self, name: &str, values: &mut [f32]);
    /// As [`Self::f32s`].
    fn f64s(&mut self, name: &str, values: &mut [f64]);
    /// As [`Self::f32s`].
    fn u64s(&mut self, name: &str, values: &mut [u64]);
    /// A list that grows while training goes on.
    fn list(&mut self, name: &str, values: &mut Vec<f32>);
    /// As [`Self::list`].
    fn wide_list(&mut self, name: &str, values: &mut Vec<f64>);
    /// What is kept and is no part of the digest, for it differs from one run to the next: measured times.
    fn aside(&mut self, name: &str, value: &mut f64);
}

/// One array of a state.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Whole numbers.
    U64(Vec<u64>),
}

/// Hashes a state: CRC-64/XZ over names, lengths and bits.
pub struct Digest {
    crc: crc::Crc<u64, crc::Table<16>>,
    state: u64,
}

impl Digest {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { crc: crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_XZ), state: 0 }
    }

    /// The digest of everything that `show` visits.
    pub fn of(show: impl FnOnce(&mut dyn Visitor)) -> u64 {
        let mut digest = Self::new();
        show(&mut digest);
        digest.value()
    }

    /// The digest so far.
    pub fn value(&self) -> u64 {
        self.state
    }

    /// Adds bytes under a name.
    pub fn bytes(&mut self, name: &str, values: impl Iterator<Item = u8>) {
        // Each part is hashed alone and chained by its predecessor, so parts cannot run into one another.
        let mut part = self.crc.digest();
        part.update(&self.state.to_le_bytes());
        part.update(name.as_bytes());
        let mut buffer = [0; 4096];
        let mut filled = 0;
        for byte in values {
            buffer[filled] = byte;
            filled += 1;
            if filled == buffer.len() {
                part.update(&buffer);
                filled = 0;
            }
        }
        part.update(&buffer[..filled]);
        self.state = part.finalize();
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Visitor for Digest {
    fn f32s(&mut self, name: &str, values: &mut [f32]) {
        self.bytes(name, values.iter().flat_map(|x| x.to_bits().to_le_bytes()));
    }

    fn f64s(&mut self, name: &str, values: &mut [f64]) {
        self.bytes(name, values.iter().flat_map(|x| x.to_bits().to_le_bytes()));
    }

    fn u64s(&mut self, name: &str, values: &mut [u64]) {
        self.bytes(name, values.iter().flat_map(|x| x.to_le_bytes()));
    }

    fn list(&mut self, name: &str, values: &mut Vec<f32>) {
        self.f32s(name, values);
    }

    fn wide_list(&mut self, name: &str, values: &mut Vec<f64>) {
        self.f64s(name, values);
    }

    fn aside(&mut self, _: &str, _: &mut f64) {}
}

/// Copies a state out, array by array.
#[derive(Debug, Default)]
pub struct Save {
    /// The arrays by name.
    pub arrays: BTreeMap<String, Array>,
}

impl Visitor for Save {
    fn f32s(&mut self, name: &str, values: &mut [f32]) {
        self.arrays.insert(name.to_string(), Array::F32(values.to_vec()));
    }

    fn f64s(&mut self, name: &str, values: &mut [f64]) {
        self.arrays.insert(name.to_string(), Array::F64(values.to_vec()));
    }

    fn u64s(&mut self, name: &str, values: &mut [u64]) {
        self.arrays.insert(name.to_string(), Array::U64(values.to_vec()));
    }

    fn list(&mut self, name: &str, values: &mut Vec<f32>) {
        self.f32s(name, values);
    }

    fn wide_list(&mut self, name: &str, values: &mut Vec<f64>) {
        self.f64s(name, values);
    }

    fn aside(&mut self, name: &str, value: &mut f64) {
        self.f64s(name, std::slice::from_mut(value));
    }
}

/// Puts saved arrays back. What does not fit is remembered, and [`Self::finish`] tells of the first.
#[derive(Debug)]
pub struct Load {
    arrays: BTreeMap<String, Array>,
    misfit: Option<String>,
}

impl Load {
    /// From the arrays of a [`Save`].
    pub fn new(arrays: BTreeMap<String, Array>) -> Self {
        Self { arrays, misfit: None }
    }

    /// Whether every number that was asked for was there, and none is left over.
    pub fn finish(self) -> Result<()> {
        let left = self.arrays.keys().next().map(|name| format!("{name} belongs nowhere"));
        match self.misfit.or(left) {
            None => Ok(()),
            Some(what) => Err(Error::failure(format!(
                "the saved state does not fit its configuration ({what}): it was made by another version; train anew"
            ))),
        }
    }

    fn take(&mut self, name: &str) -> Option<Array> {
        let array = self.arrays.remove(name);
        if array.is_none() {
            self.misfit.get_or_insert(format!("{name} is missing"));
        }
        array
    }

    fn misfits(&mut self, name: &str) {
        self.misfit.get_or_insert(format!("{name} has another size"));
    }
}

impl Visitor for Load {
    fn f32s(&mut self, name: &str, values: &mut [f32]) {
        match self.take(name) {
            Some(Array::F32(saved)) if saved.len() == values.len() => values.copy_from_slice(&saved),
            Some(_) => self.misfits(name),
            None => {}
        }
    }

    fn f64s(&mut self, name: &str, values: &mut [f64]) {
        match self.take(name) {
            Some(Array::F64(saved)) if saved.len() == values.len() => values.copy_from_slice(&saved),
            Some(_) => self.misfits(name),
            None => {}
        }
    }

    fn u64s(&mut self, name: &str, values: &mut [u64]) {
        match self.take(name) {
            Some(Array::U64(saved)) if saved.len() == values.len() => values.copy_from_slice(&saved),
            Some(_) => self.misfits(name),
            None => {}
        }
    }

    fn list(&mut self, name: &str, values: &mut Vec<f32>) {
        match self.take(name) {
            Some(Array::F32(saved)) => *values = saved,
            Some(_) => self.misfits(name),
            None => {}
        }
    }

    fn wide_list(&mut self, name: &str, values: &mut Vec<f64>) {
        match self.take(name) {
            Some(Array::F64(saved)) => *values = saved,
            Some(_) => self.misfits(name),
            None => {}
        }
    }

    fn aside(&mut self, name: &str, value: &mut f64) {
        self.f64s(name, std::slice::from_mut(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Thing {
        weights: [f32; 3],
        count: u64,
        power: f64,
        grown: Vec<f32>,
        seconds: f64,
    }

    impl Thing {
        fn visit(&mut self, visitor: &mut dyn Visitor) {
            visitor.f32s("weights", &mut self.weights);
            visitor.u64s("count", std::slice::from_mut(&mut self.count));
            visitor.f64s("power", std::slice::from_mut(&mut self.power));
            visitor.list("grown", &mut self.grown);
            visitor.aside("seconds", &mut self.seconds);
        }
    }

    fn thing() -> Thing {
        Thing { weights: [1.0, -0.0, f32::NAN], count: u64::MAX, power: 0.1, grown: vec![2.0; 5000], seconds: 3.5 }
    }

    #[test]
    fn what_is_saved_comes_back_to_the_bit() {
        let (mut from, mut to) = (thing(), Thing::default());
        let mut save = Save::default();
        from.visit(&mut save);
        let mut load = Load::new(save.arrays);
        to.visit(&mut load);
        load.finish().unwrap();
        assert_eq!(to.weights.map(f32::to_bits), from.weights.map(f32::to_bits));
        assert_eq!((to.count, to.power, &to.grown, to.seconds), (from.count, from.power, &from.grown, from.seconds));
        assert_eq!(Digest::of(|v| to.visit(v)), Digest::of(|v| from.visit(v)));
    }

    #[test]
    fn every_bit_counts_but_for_what_stands_aside() {
        let digest = |change: fn(&mut Thing)| {
            let mut thing = thing();
            change(&mut thing);
            Digest::of(|v| thing.visit(v))
        };
        let plain = digest(|_| {});
        assert_ne!(plain, digest(|t| t.weights[1] = 0.0));
        assert_ne!(plain, digest(|t| t.count -= 1));
        assert_ne!(plain, digest(|t| t.power += 1e-17 * 2.0));
        assert_ne!(plain, digest(|t| t.grown[4999] = 2.000_000_2));
        assert_ne!(plain, digest(|t| t.grown.push(0.0)));
        assert_eq!(plain, digest(|t| t.seconds = 0.0));
    }

    #[test]
    fn misfits_are_named() {
        let saved = || {
            let mut save = Save::default();
            thing().visit(&mut save);
            save.arrays
        };
        let refusal = |arrays: BTreeMap<String, Array>| {
            let mut load = Load::new(arrays);
            Thing::default().visit(&mut load);
            load.finish().unwrap_err().to_string()
        };
        let mut missing = saved();
        missing.remove("power");
        assert!(refusal(missing).contains("power is missing"));
        let mut short = saved();
        short.insert("weights".into(), Array::F32(vec![1.0]));
        assert!(refusal(short).contains("weights has another size"));
        let mut more = saved();
        more.insert("more".into(), Array::U64(vec![1]));
        assert!(refusal(more).contains("more belongs nowhere"));
    }
}
