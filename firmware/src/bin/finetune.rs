#![no_std]
#![no_main]
use flowlet::finetune::*;
use flowlet::policy::Artefact;
use flowlet_firmware::embedded::furuta_critic::{ARTEFACT, VELOCITY, CRITIC};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, stack, time};
use plants::Furuta;
use rand_xoshiro::rand_core::SeedableRng;
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};

const CONFIG: Config = Config {
        actor: Trained::LowRank(1),
        critic: Trained::LowRank(7),
        optimiser: Optimiser::Adam,
        transitions: 2000,
        storage: Storage::I16,
        batch: 16,
        actor_batch: 8,
        candidates: 8,
        critic_rate: 1e-3,
        actor_rate: 3e-4,
        gradient_limit: 10.0,
        discount: 0.99,
        target_rate: 0.01,
        acting_rate: 0.01,
        temperature: 0.1,
        spread: 0.3,
        reward_limit: 5.0,
        every: 4,
        warmup: 0,
        exploration: 0.1,
        correlation: 0.8,
        stride: 5,
        horizon: 2,
        slice: 20_000,
};
const WORDS: usize = words(&VELOCITY, &CRITIC.unwrap(), &CONFIG);

#[entry]
fn main() -> ! {
    init();
    let decisions = argument("n").unwrap_or(400);
    let artefact = Artefact::new(ARTEFACT).unwrap();
    static mut MEMORY: [u32; WORDS] = [0; WORDS];
    let memory = unsafe { &mut *core::ptr::addr_of_mut!(MEMORY) };
    let mut learner = Learner::new(&artefact, Config { slice: argument("slice").unwrap_or(20_000) as u32, ..CONFIG }, 1, &mut memory[..]).unwrap();
    let mut plant = Furuta::new();
    plant.reset(&mut Xoshiro256PlusPlus::seed_from_u64(1));
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(1);
    let (mut slices, mut pulses, mut acts, mut records, mut finishes) = (Cost::default(), Cost::default(), Cost::default(), Cost::default(), Cost::default());
    for _ in 0..decisions {
        let obs = plant.observe().map(|v| v as f32);
        pulses.record(time::measure(|| learner.pulse()).1);
        let mut a = [0.0f32];
        acts.record(time::measure(|| learner.act(&obs, &mut noise, &mut a)).1);
        let mut r = 0.0;
        for _ in 0..5 { r += plant.step(f64::from(a[0])); }
        records.record(time::measure(|| learner.record(&obs, &a, r as f32 * 0.2, After::Next)).1);
        let (mut all, mut any) = (0, false);
        loop {
            let (more, n) = time::measure(|| learner.slice());
            if !more { break }
            slices.record(n);
            all += n; any = true;
        }
        if any { finishes.record(all); }
    }
    defmt::info!("slice mean {} max {}; pulse mean {} max {}; act {} {}; record {} {}; update {} {} n {}", slices.mean(), slices.largest(), pulses.mean(), pulses.largest(), acts.mean(), acts.largest(), records.mean(), records.largest(), finishes.mean(), finishes.largest(), learner.updates());
    defmt::info!("stack {}", stack::used().unwrap_or(0));
    finish()
}
