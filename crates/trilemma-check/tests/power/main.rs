//! How much the linearizability checkers see: legal histories are accepted, planted anomalies are rejected, with
//! versions and without, by the check as a whole and by each engine alone.

mod brute;
mod generate;
mod plant;

use generate::{Shape, legal};
use plant::{Anomaly, Planter};
use trilemma_check::explain::{smallest, svg, text};
use trilemma_check::history::{History, Operation};
use trilemma_check::linearizability::{Budget, Finding, Report, check};
use trilemma_check::model::Model;
use trilemma_check::verdict::Verdict;
use trilemma_core::Rng;

const TABLES: [Model; 4] = [
    Model::Register,
    Model::CasRegister,
    Model::PerKey,
    Model::KeyValue,
];

fn shape(model: Model, seed: u64, has_versions: bool) -> Shape {
    Shape {
        model,
        processes: 2 + seed % 6,
        keys: 1 + seed % 5,
        operations: 40 + (seed % 7) as usize * 15,
        has_versions,
    }
}

/// What each engine said, as a letter: l(egal), i(llegal), u(ndecided), n(ot applicable).
fn letter(report: &Report, engine: &str) -> char {
    match report.engines.iter().find(|(name, _)| *name == engine) {
        Some((_, Finding::Verdict(Verdict::Legal))) => 'l',
        Some((_, Finding::Verdict(Verdict::Illegal(_)))) => 'i',
        Some((_, Finding::Verdict(Verdict::Undecided { .. }))) => 'u',
        Some((_, Finding::NotApplicable { .. })) => 'n',
        None => '-',
    }
}

#[derive(Default)]
struct Tally {
    histories: usize,
    legal: [usize; 4],
    illegal: [usize; 4],
}

const ENGINES: [&str; 4] = ["witness", "zones", "search", "collections"];

impl Tally {
    fn count(&mut self, report: &Report) {
        self.histories += 1;
        for (place, engine) in ENGINES.iter().enumerate() {
            let letter = letter(report, engine);
            self.legal[place] += usize::from(letter == 'l');
            self.illegal[place] += usize::from(letter == 'i');
        }
    }
}

impl Tally {
    fn named(&self, counts: [usize; 4]) -> [(&'static str, usize); 4] {
        std::array::from_fn(|place| (ENGINES[place], counts[place]))
    }
}

fn dump(operations: &[Operation]) -> String {
    let mut text = Vec::new();
    let operations = operations.to_vec();
    History { operations }.write(&mut text).expect("memory holds it");
    String::from_utf8(text).expect("JSON is text")
}

fn judge(operations: &[Operation], model: Model) -> Report {
    check(operations, model, Budget::default())
}

#[test]
fn legal_histories_are_accepted() {
    for (model, has_versions) in Model::ALL
        .into_iter()
        .flat_map(|model| [(model, true), (model, false)])
    {
        let mut tally = Tally::default();
        for seed in 0..200 {
            let operations = legal(seed, shape(model, seed, has_versions));
            let history = History { operations };
            history.validate().expect("generated histories are well formed");
            let report = judge(&history.operations, model);
            tally.count(&report);
            let about = || {
                format!(
                    "seed {seed} {model}: {:#?}\n{}",
                    report.engines,
                    dump(&history.operations)
                )
            };
            assert_eq!(report.verdict, Verdict::Legal, "{}", about());
            let all = ENGINES.map(|engine| letter(&report, engine));
            assert!(all.iter().all(|letter| "ln-".contains(*letter)), "{}", about());
            if !has_versions {
                assert_eq!(all[2], 'l', "the search finds an order: {}", about());
            }
        }
        println!(
            "{model}, versions {has_versions}: of {} legal {:?}",
            tally.histories,
            tally.named(tally.legal)
        );
    }
}

/// The models whose histories can have this anomaly.
fn models(anomaly: Anomaly) -> &'static [Model] {
    match anomaly {
        Anomaly::FracturedCommand | Anomaly::RangeMissesKey | Anomaly::RangeResurrectsKey => {
            &[Model::KeyValue]
        }
        Anomaly::LostUpdate => &TABLES[1..],
        _ => &TABLES,
    }
}

/// Plants 200 of a class, and says what each engine saw.
fn reject_planted(anomaly: Anomaly, has_versions: bool) -> Tally {
    const EACH: usize = 200;
    let mut tally = Tally::default();
    let mut seed = 0;
    while tally.histories < EACH {
        assert!(
            seed < 20_000,
            "{anomaly:?}: too few histories have a place for it"
        );
        seed += 1;
        let model = models(anomaly)[seed as usize % models(anomaly).len()];
        let mut rng = Rng::new(seed);
        let original = legal(seed, shape(model, seed / 4, has_versions));
        let mut planter = Planter::new(original.clone(), &mut rng);
        if !planter.plant(anomaly) {
            continue;
        }
        assert_eq!(judge(&original, model).verdict, Verdict::Legal);
        let operations = planter.operations;
        let report = judge(&operations, model);
        tally.count(&report);
        let about = || {
            format!(
                "{anomaly:?} seed {seed} {model}: {:#?}\n{}",
                report.engines,
                dump(&operations)
            )
        };
        let Verdict::Illegal(violation) = &report.verdict else {
            panic!("{}", about());
        };
        assert_ne!(violation.rule, "engines-disagree", "{}", about());
        assert!(
            violation.operations.iter().all(|place| *place < operations.len()),
            "{}",
            about()
        );
        assert_eq!(
            letter(&report, "search"),
            'i',
            "values and times alone must refute it: {}",
            about()
        );
    }
    tally
}

#[test]
fn planted_anomalies_are_rejected() {
    for anomaly in Anomaly::ALL {
        let tally = reject_planted(anomaly, true);
        println!(
            "{anomaly:?}: {} illegal: {:?}",
            tally.histories,
            tally.named(tally.illegal)
        );
    }
}

#[test]
fn planted_anomalies_are_rejected_without_versions() {
    for anomaly in Anomaly::ALL {
        let tally = reject_planted(anomaly, false);
        println!(
            "{anomaly:?} without versions: {} illegal: {:?}",
            tally.histories,
            tally.named(tally.illegal)
        );
    }
}

/// Every engine that decides says what trying every order says, on histories with and without repeated values.
#[test]
fn engines_agree_with_trying_every_order() {
    for (model, is_unique) in Model::ALL
        .into_iter()
        .flat_map(|model| [(model, true), (model, false)])
    {
        let mut tally = Tally::default();
        let mut legal_count = 0;
        for seed in 0..1_500 {
            let operations = brute::random(seed, model, is_unique);
            let is_legal = brute::has_order(&operations, model);
            legal_count += usize::from(is_legal);
            let report = judge(&operations, model);
            tally.count(&report);
            let about = || {
                format!(
                    "seed {seed} {model}: {:#?}\n{}",
                    report.engines,
                    dump(&operations)
                )
            };
            assert_eq!(report.verdict.is_legal(), is_legal, "{}", about());
            let expected = if is_legal { "ln-" } else { "in-" };
            for engine in ENGINES {
                assert!(
                    expected.contains(letter(&report, engine)),
                    "{engine}: {}",
                    about()
                );
            }
        }
        assert!(
            legal_count > 100 && legal_count < 1_400,
            "{model}: {legal_count} legal is no test"
        );
        println!(
            "{model}, unique {is_unique}: {legal_count} legal: {:?}, the rest illegal: {:?}",
            tally.named(tally.legal),
            tally.named(tally.illegal)
        );
    }
}

/// What is cut out of a history with an anomaly is small, illegal by itself, and can be explained and drawn.
#[test]
fn anomalies_are_cut_out() {
    for (anomaly, has_versions) in Anomaly::ALL
        .into_iter()
        .flat_map(|anomaly| [(anomaly, true), (anomaly, false)])
    {
        let (mut sizes, mut before) = (Vec::new(), 0);
        for seed in 0..20_000 {
            if sizes.len() == 10 {
                break;
            }
            let model = models(anomaly)[seed as usize % models(anomaly).len()];
            let mut rng = Rng::new(seed);
            let mut planter = Planter::new(legal(seed, shape(model, seed / 4, has_versions)), &mut rng);
            if !planter.plant(anomaly) {
                continue;
            }
            let operations = planter.operations;
            let Verdict::Illegal(violation) = judge(&operations, model).verdict else {
                panic!("{anomaly:?} seed {seed} must be illegal");
            };
            let small = smallest(&operations, model, Budget::default(), &violation);
            let part: Vec<Operation> = small
                .operations
                .iter()
                .map(|place| operations[*place].clone())
                .collect();
            let again = judge(&part, model).verdict;
            assert!(
                matches!(again, Verdict::Illegal(_)),
                "{anomaly:?} seed {seed}: {}",
                text(&operations, &small)
            );
            before += operations.len();
            sizes.push(part.len());
            assert!(text(&operations, &small).lines().count() > part.len());
            assert!(svg(&History { operations }, &small).ends_with("</svg>\n"));
        }
        sizes.sort_unstable();
        // A chain of commands each won from the last cannot be cut in the middle; most parts are a handful.
        assert!(sizes[sizes.len() / 2] <= 8, "{anomaly:?}: {sizes:?}");
        println!(
            "{anomaly:?}, versions {has_versions}: of {} operations {sizes:?} remain",
            before / sizes.len()
        );
    }
}
