//! The predictor against recorded tables of seeded simulations and against a Monte Carlo made here.

use trilemma_core::Rng;

use super::*;

fn params(nodes: u32, fanout: u32, loss: f64, delay: f64) -> Params {
    let tick = Duration::from_millis(200);
    Params {
        nodes,
        fanout,
        tick,
        loss,
        latency: tick.mul_f64(delay),
        miss_probability: 0.001,
    }
}

fn ticks(time: Duration) -> f64 {
    time.as_secs_f64() / 0.2
}

#[test]
fn the_recurrence_agrees_with_the_simulated_rounds() {
    // nodes, fanout, loss, simulated mean and p99, recurrence mean and p99 of the note's table.
    let table = [
        (1_000, 1, 0.0, 18.06, 24, 18.03, 22),
        (1_000, 3, 0.1, 8.82, 11, 8.71, 10),
        (10_000, 1, 0.0, 23.85, 29, 23.68, 28),
        (10_000, 3, 0.0, 10.61, 12, 10.56, 12),
        (10_000, 3, 0.3, 13.51, 16, 13.46, 15),
        (10_000, 4, 0.1, 9.44, 11, 9.40, 11),
    ];
    for (nodes, fanout, loss, simulated, p99, mean, mean_p99) in table {
        let found = predict(&params(nodes, fanout, loss, 0.0));
        assert!(
            (found.rounds - mean).abs() < 0.02,
            "{nodes} {fanout} {loss}: {}",
            found.rounds
        );
        assert!((found.rounds - simulated).abs() <= 0.3);
        assert_eq!(found.rounds_p99, mean_p99);
        assert!(p99 <= found.rounds_p99 + if fanout == 1 { 2 } else { 1 });
    }
}

#[test]
fn the_delay_equation_agrees_with_the_simulated_ticks() {
    // nodes, fanout, loss, delay/tick, simulated mean and p99, delay equation of the note's table.
    let table = [
        (1_000, 3, 0.0, 0.05, 5.33, 6.9, 5.17),
        (1_000, 3, 0.1, 0.25, 7.17, 8.8, 7.01),
        (10_000, 1, 0.0, 0.0, 19.19, 23.4, 19.00),
        (10_000, 3, 0.0, 0.05, 7.00, 9.3, 6.82),
        (10_000, 3, 0.3, 0.25, 11.41, 14.1, 11.26),
        (10_000, 3, 0.0, 1.0, 13.25, 14.8, 13.28),
    ];
    for (nodes, fanout, loss, delay, simulated, p99, equation) in table {
        let found = predict(&params(nodes, fanout, loss, delay));
        let mean = ticks(found.mean);
        assert!(
            (mean - equation).abs() < 0.05 * equation,
            "{nodes} {fanout} {loss} {delay}: {mean}"
        );
        assert!(
            (mean - simulated).abs() < 0.05 * simulated,
            "{nodes} {fanout} {loss} {delay}: {mean}"
        );
        assert!(
            p99 <= ticks(found.p99) + 1.0,
            "{nodes} {fanout}: {}",
            ticks(found.p99)
        );
        assert!(found.p50 < found.mean && found.mean < found.p99 && found.p99 < found.p999);
    }
}

/// Rounds until all of `nodes` are informed, once.
fn simulate(nodes: u32, fanout: u32, loss_per_mille: u32, rng: &mut Rng) -> u32 {
    let mut informed = vec![false; nodes as usize];
    informed[0] = true;
    let mut count = 1;
    for round in 0.. {
        if count == nodes {
            return round;
        }
        let senders: Vec<usize> = (0..informed.len()).filter(|at| informed[*at]).collect();
        for sender in senders {
            let mut reached = vec![sender];
            while reached.len() <= fanout as usize {
                let target = rng.below(u64::from(nodes)) as usize;
                if reached.contains(&target) {
                    continue;
                }
                reached.push(target);
                if !informed[target] && !rng.per_mille(loss_per_mille) {
                    informed[target] = true;
                    count += 1;
                }
            }
        }
    }
    unreachable!("the loop ends when all are informed")
}

#[test]
fn the_recurrence_agrees_with_a_monte_carlo() {
    let mut rng = Rng::new(11);
    for (nodes, fanout, loss) in [(100, 1, 0), (100, 3, 100), (1_000, 2, 0), (1_000, 3, 300)] {
        let runs = 200;
        let total: u32 = (0..runs).map(|_| simulate(nodes, fanout, loss, &mut rng)).sum();
        let simulated = f64::from(total) / f64::from(runs);
        let predicted = predict(&params(nodes, fanout, f64::from(loss) / 1000.0, 0.0)).rounds;
        assert!(
            (simulated - predicted).abs() <= 0.35,
            "{nodes} {fanout} {loss}: {simulated} {predicted}"
        );
    }
}

#[test]
fn every_input_has_an_answer() {
    for nodes in [0, 1, 2, 3, 5] {
        for (fanout, loss) in [(0, 0.0), (1, 0.5), (9, 1.0), (3, -1.0)] {
            for delay in [0.0, 0.001, 50.0] {
                let found = predict(&params(nodes, fanout, loss, delay));
                assert!(
                    found.mean <= found.p999 && found.rounds >= 0.0,
                    "{nodes} {found:?}"
                );
                assert_eq!(found.mean.is_zero(), nodes <= 1, "{nodes} {found:?}");
            }
        }
    }
    assert_eq!(infective_ticks(&params(10_000, 3, 0.0, 0.0)), 7);
}
