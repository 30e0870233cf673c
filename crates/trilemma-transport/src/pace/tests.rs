//! A burst, then a pace.

use super::*;

#[test]
fn a_burst_is_let_through_and_then_so_many_a_second() {
    let start = Instant::now();
    let mut pace = Pace::new((10, 5), start);
    let taken = |pace: &mut Pace, ms| {
        let now = start + Duration::from_millis(ms);
        (0..100).take_while(|_| pace.take(now)).count()
    };
    assert_eq!(taken(&mut pace, 0), 5);
    assert_eq!(taken(&mut pace, 99), 0);
    assert_eq!(taken(&mut pace, 100), 1);
    assert_eq!(taken(&mut pace, 350), 2);
    assert_eq!(taken(&mut pace, 60_000), 5);
}
