//! Names the chip's linker script; esp-hal brings it with its memory map.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Tlinkall.x");
}
