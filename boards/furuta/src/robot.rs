use crate::{Tick, Ticks};
use embedded_hal::digital::{InputPin, OutputPin};
use embedded_hal::pwm::SetDutyCycle;
pub struct Wiring<E, P, S, L> { pub enable: E, pub phase: P, pub stop: S, pub lamp: L }
pub trait Board { const CLOCK_HZ: u32; fn now(&mut self) -> u32; fn start_watchdog(&mut self); fn feed_watchdog(&mut self); }
pub fn run<E: SetDutyCycle, P: OutputPin, S: InputPin, L: OutputPin, B: Board>(mut w: Wiring<E,P,S,L>, mut board: B, ticks: &Ticks) -> ! {
    board.start_watchdog();
    let mut tick = Tick::default();
    loop {
        tick = ticks.after(tick.number);
        let pressed = w.stop.is_high().unwrap_or(true);
        let _ = w.lamp.set_state(pressed.into());
        let _ = w.phase.set_state((tick.counts[0] > tick.counts[1]).into());
        let _ = w.enable.set_duty_cycle(if pressed {0} else {tick.counts[0]});
        board.feed_watchdog();
        board.now();
    }
}
