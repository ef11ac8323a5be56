//! Virtual time: a control tick at a fixed rate, and the number of instructions executed.
//!
//! Under QEMU's `-icount shift=N` every instruction takes 2^N ns of virtual time and nothing else takes any, so a timer
//! counts instructions. `board::ICOUNT_SHIFT` is that N; [`calibrate`] runs a loop of known length and refuses to go on
//! when the count is wrong (another shift, another clock, no `-icount`). QEMU knows no cycles: nothing here says how
//! long a program takes on a real chip.
//!
//! * Arm: SysTick. The tick is its interrupt; the count is its ticks times the ns of a tick over the ns of an
//!   instruction, so it is exact to [`RESOLUTION`] instructions. A measured span must be shorter than a control period.
//! * RISC-V: the tick is the machine timer's interrupt, the count is `minstret`, exact to one instruction. QEMU before 8
//!   counts virtual ns in that register; [`calibrate`] finds out which of the two it is.
//!
//! No floating point, no allocation.

use crate::board;
use core::sync::atomic::{AtomicU32, Ordering};

/// Ticks since [`start`], counted by the interrupt handler.
static TICKS: AtomicU32 = AtomicU32::new(0);

/// What an empty measured span counts; subtracted from every count.
static OVERHEAD: AtomicU32 = AtomicU32::new(0);

/// Counts of the hardware counter per instruction, as a power of two.
static UNIT: AtomicU32 = AtomicU32::new(0);

/// The counts of instructions are exact to this many.
pub const RESOLUTION: u64 = machine::RESOLUTION;

/// The counter does not count instructions: the program runs with another `-icount` than it was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterIsWrong {
    /// Instructions in the loop.
    pub executed: u64,
    /// What the counter made of it.
    pub counted: u64,
}

impl defmt::Format for CounterIsWrong {
    fn format(&self, f: defmt::Formatter) {
        // Not by way of Display, which would bring the formatting machinery of `core` into every image.
        defmt::write!(
            f,
            "a loop of {=u64} instructions counts as {=u64}: run this program by `cargo xtask qemu {=str}`",
            self.executed,
            self.counted,
            board::NAME
        );
    }
}

/// Measures the counter's own overhead and checks it against a loop of known length.
pub fn calibrate() -> Result<(), CounterIsWrong> {
    const TURNS: u32 = 20_000;
    machine::start_counter();
    let executed = 2 * u64::from(TURNS);
    let mut counted = 0;
    for unit in machine::UNITS {
        UNIT.store(unit, Ordering::Relaxed);
        OVERHEAD.store(0, Ordering::Relaxed);
        let empty = Stopwatch::start().instructions();
        OVERHEAD.store(empty as u32, Ordering::Relaxed);
        let watch = Stopwatch::start();
        machine::spin(TURNS);
        counted = watch.instructions();
        // A few instructions set the loop up.
        if counted.abs_diff(executed) <= RESOLUTION + 8 {
            return Ok(());
        }
    }
    Err(CounterIsWrong { executed, counted })
}

/// Starts the control tick. The first one comes after one period.
///
/// # Panics
/// When the period does not fit the timer (24 bits on Arm: 520 ms at the fastest clock).
pub fn start(period_us: u32) {
    TICKS.store(0, Ordering::Relaxed);
    machine::start_ticks(period_us);
}

/// Whether the timer can tick at this period; with another one [`start`] panics.
pub fn fits(period_us: u32) -> bool {
    machine::reload(period_us).is_some()
}

/// Stops the control tick; instructions are counted as before.
pub fn stop() {
    machine::stop_ticks();
}

/// Sleeps until an interrupt that is switched on becomes pending, unless `done`; the tick is one.
pub fn rest_unless(done: impl Fn() -> bool) {
    machine::sleep_unless(done);
}

/// Ticks since [`start`].
pub fn ticks() -> u32 {
    TICKS.load(Ordering::Relaxed)
}

/// Sleeps until the tick after number `seen`, and returns the number of the newest tick.
///
/// A result above `seen + 1` says that the work since then took longer than a period.
pub fn wait_after(seen: u32) -> u32 {
    while ticks() == seen {
        machine::sleep_unless(|| ticks() != seen);
    }
    ticks()
}

/// Counts the instructions between its start and a reading.
pub struct Stopwatch(machine::Instant);

impl Stopwatch {
    /// Starts counting.
    #[inline(always)]
    pub fn start() -> Self {
        Self(machine::Instant::now())
    }

    /// Instructions executed since the start, without the stopwatch's own.
    #[inline(always)]
    pub fn instructions(&self) -> u64 {
        let now = machine::Instant::now();
        now.since(&self.0).saturating_sub(u64::from(OVERHEAD.load(Ordering::Relaxed)))
    }
}

/// Does `work` and counts its instructions; a handful for calling it are included.
pub fn measure<R>(work: impl FnOnce() -> R) -> (R, u64) {
    /// Kept out of line, so that the compiler cannot move the work out from between the two readings.
    #[inline(never)]
    fn fenced<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    let watch = Stopwatch::start();
    let result = fenced(work);
    (result, watch.instructions())
}

fn tick() {
    // Only the handler writes while ticks run; Armv6-M has no atomic addition.
    TICKS.store(TICKS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[cfg(target_arch = "arm")]
mod machine {
    use super::{UNIT, board};
    use core::sync::atomic::Ordering;
    use cortex_m::peripheral::SYST;
    use cortex_m::peripheral::syst::SystClkSource;

    /// The ns of a tick over the ns of an instruction, rounded up.
    pub const RESOLUTION: u64 = (1_000_000_000 / board::TIMER_HZ as u64).div_ceil(1 << board::ICOUNT_SHIFT);

    /// A count is in virtual ns.
    pub const UNITS: [u32; 1] = [board::ICOUNT_SHIFT];

    const LONGEST: u32 = 0x00ff_ffff;

    pub struct Instant(u32);

    impl Instant {
        #[inline(always)]
        pub fn now() -> Self {
            Self(SYST::get_current())
        }

        /// SysTick counts down and starts again from its reload value.
        #[inline(never)]
        pub fn since(&self, earlier: &Self) -> u64 {
            let period = SYST::get_reload() + 1;
            let ticks = if earlier.0 >= self.0 { earlier.0 - self.0 } else { earlier.0 + period - self.0 };
            let ns = u64::from(ticks) * 1_000_000_000 / u64::from(board::TIMER_HZ);
            let unit = UNIT.load(Ordering::Relaxed);
            (ns + (1 << unit) / 2) >> unit
        }
    }

    fn systick() -> SYST {
        // SAFETY: this module is the only user of SysTick.
        unsafe { cortex_m::Peripherals::steal() }.SYST
    }

    pub fn start_counter() {
        run(LONGEST, false);
    }

    /// What SysTick counts down from.
    pub fn reload(period_us: u32) -> Option<u32> {
        let ticks = u64::from(period_us) * u64::from(board::TIMER_HZ) / 1_000_000;
        (ticks >= 2 && ticks - 1 <= u64::from(LONGEST)).then(|| ticks as u32 - 1)
    }

    pub fn start_ticks(period_us: u32) {
        run(reload(period_us).expect("the control period does not fit SysTick"), true);
    }

    pub fn stop_ticks() {
        run(LONGEST, false);
    }

    fn run(reload: u32, interrupt: bool) {
        let mut systick = systick();
        systick.disable_counter();
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(reload);
        systick.clear_current();
        if interrupt {
            systick.enable_interrupt();
        } else {
            systick.disable_interrupt();
        }
        systick.enable_counter();
    }

    /// With interrupts masked a pending one still ends the sleep, so none slips in between the test and `wfi`.
    pub fn sleep_unless(done: impl Fn() -> bool) {
        cortex_m::interrupt::free(|_| {
            if !done() {
                cortex_m::asm::wfi();
            }
        });
    }

    /// `2 * turns` instructions.
    #[inline(always)]
    pub fn spin(turns: u32) {
        // SAFETY: counts a register down.
        unsafe {
            core::arch::asm!("2:", "subs {n}, #1", "bne 2b", n = inout(reg) turns => _, options(nomem, nostack));
        }
    }

    #[cortex_m_rt::exception]
    fn SysTick() {
        super::tick();
    }
}

#[cfg(target_arch = "riscv32")]
mod machine {
    use super::{UNIT, board};
    use core::sync::atomic::{AtomicU32, Ordering};
    use riscv::register::{mie, minstret};

    pub const RESOLUTION: u64 = 1;

    /// Instructions, or virtual ns in QEMU before 8.
    pub const UNITS: [u32; 2] = [0, board::ICOUNT_SHIFT];

    /// The timer of the `virt` machine's core-local interruptor.
    const MTIMECMP: *mut u32 = 0x0200_4000 as *mut u32;
    const MTIME: *const u32 = 0x0200_bff8 as *const u32;

    static PERIOD: AtomicU32 = AtomicU32::new(0);

    pub struct Instant(u64);

    impl Instant {
        #[inline(always)]
        pub fn now() -> Self {
            Self(minstret::read64())
        }

        pub fn since(&self, earlier: &Self) -> u64 {
            self.0.wrapping_sub(earlier.0) >> UNIT.load(Ordering::Relaxed)
        }
    }

    pub fn start_counter() {}

    /// Counts of the machine timer in a period.
    pub fn reload(period_us: u32) -> Option<u32> {
        let ticks = u64::from(period_us) * u64::from(board::TIMER_HZ) / 1_000_000;
        u32::try_from(ticks).ok().filter(|ticks| *ticks >= 2)
    }

    pub fn stop_ticks() {
        // SAFETY: the interrupt is off from here on.
        unsafe { mie::clear_mtimer() };
    }

    pub fn start_ticks(period_us: u32) {
        let ticks = u64::from(reload(period_us).expect("the control period does not fit the machine timer"));
        PERIOD.store(ticks as u32, Ordering::Relaxed);
        let (low, high) = loop {
            // SAFETY: reads of the machine timer; a second look at the high half tells a carry in between.
            let (high, low, again) =
                unsafe { (MTIME.add(1).read_volatile(), MTIME.read_volatile(), MTIME.add(1).read_volatile()) };
            if high == again {
                break (low, high);
            }
        };
        set_alarm(((u64::from(high) << 32) | u64::from(low)) + ticks);
        // SAFETY: the handler below is in place.
        unsafe {
            mie::set_mtimer();
            riscv::interrupt::enable();
        }
    }

    fn set_alarm(at: u64) {
        // SAFETY: with the high half at its largest no alarm is due while the halves disagree.
        unsafe {
            MTIMECMP.add(1).write_volatile(u32::MAX);
            MTIMECMP.write_volatile(at as u32);
            MTIMECMP.add(1).write_volatile((at >> 32) as u32);
        }
    }

    /// With interrupts masked a pending one still ends the sleep, so none slips in between the test and `wfi`.
    pub fn sleep_unless(done: impl Fn() -> bool) {
        riscv::interrupt::free(|| {
            if !done() {
                riscv::asm::wfi();
            }
        });
    }

    /// `2 * turns` instructions.
    #[inline(always)]
    pub fn spin(turns: u32) {
        // SAFETY: counts a register down.
        unsafe {
            core::arch::asm!("2:", "addi {n}, {n}, -1", "bnez {n}, 2b", n = inout(reg) turns => _, options(nomem, nostack));
        }
    }

    #[riscv_rt::core_interrupt(riscv::interrupt::Interrupt::MachineTimer)]
    fn machine_timer() {
        // SAFETY: the alarm that just went off is where the next one is counted from, so that the rate does not drift.
        let at = unsafe { (u64::from(MTIMECMP.add(1).read_volatile()) << 32) | u64::from(MTIMECMP.read_volatile()) };
        set_alarm(at + u64::from(PERIOD.load(Ordering::Relaxed)));
        super::tick();
    }
}
