//! Which refusals are warned of.

use super::*;

fn tls(text: &str) -> Refusal {
    Refusal::Tls(text.into())
}

#[test]
fn a_certificate_that_has_expired_is_warned_of_once_until_it_stops() {
    let start = Instant::now();
    let mut refusals = Refusals::default();
    let mut warned = 0;
    for attempt in 0..1000_u16 {
        let now = start + Duration::from_millis(125) * u32::from(attempt);
        let address = SocketAddr::from(([127, 0, 0, 1], 40_000 + attempt));
        let reason = tls(&format!(
            "certificate expired: verification time {attempt}, {attempt}.5 s ago"
        ));
        warned += u32::from(refusals.is_news(now, None, address, &reason));
    }
    assert_eq!(warned, 1);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let end = start + Duration::from_secs(125);
    assert!(
        refusals.is_news(end, None, address, &tls("unknown issuer")),
        "another kind"
    );
    let later = end + FORGET_AFTER;
    assert!(refusals.is_news(
        later,
        None,
        address,
        &tls("certificate expired: verification time , . s ago")
    ));
}

#[test]
fn each_node_counts_by_itself_and_a_connection_ends_it() {
    let now = Instant::now();
    let mut refusals = Refusals::default();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let is_news =
        |refusals: &mut Refusals, node| refusals.is_news(now, Some(NodeId(node)), address, &tls("expired"));
    assert!(is_news(&mut refusals, 1));
    assert!(is_news(&mut refusals, 2));
    assert!(!is_news(&mut refusals, 1));
    refusals.connected(NodeId(1));
    assert!(is_news(&mut refusals, 1));
    assert!(!is_news(&mut refusals, 2));
}

#[test]
fn a_flood_of_different_refusals_is_bounded_and_ends() {
    let start = Instant::now();
    let mut refusals = Refusals::default();
    let flood = |refusals: &mut Refusals, now| {
        let warned = (0..10_000_u32).filter(|other| {
            let address = SocketAddr::from((other.to_be_bytes(), 1));
            refusals.is_news(now, None, address, &tls("no"))
        });
        warned.count()
    };
    assert_eq!(flood(&mut refusals, start), REMEMBERED_MAX);
    assert_eq!(flood(&mut refusals, start + Duration::from_secs(1)), 0);
    assert_eq!(refusals.seen.len(), REMEMBERED_MAX);
}
