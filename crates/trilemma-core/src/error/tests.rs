//! Errors that travel.

use super::*;
use crate::codec;

#[test]
fn l4_an_error_with_a_long_text_decodes_and_says_the_beginning() {
    let names = (0..100).map(|number| format!("keyspace-{number:03}-{}-\u{e4}", "x".repeat(60)));
    let configured = names.collect::<Vec<_>>().join(", ");
    let name = "nope".to_owned();
    let sent = Reason::NoSuchKeyspace {
        name: name.clone(),
        configured: configured.clone(),
    };
    let received: Reason = codec::decode(&codec::encode(&sent)).expect("it decodes");
    let Reason::NoSuchKeyspace {
        name: found,
        configured: clipped,
    } = received
    else {
        panic!("{received:?}");
    };
    assert_eq!(found, name);
    assert!(configured.starts_with(&clipped) && clipped.len() > ERROR_TEXT_BYTES_MAX - 4);
}

/// The parts of a second that make a whole one used to be carried over, and what was decoded took more than it had come in.
#[test]
fn a_time_with_more_than_a_second_of_nanoseconds_is_refused() {
    let retry = Retry::After(Duration::new(127, 999_999_999));
    let bytes = codec::encode(&retry);
    assert_eq!(codec::decode(&bytes).ok(), Some(retry), "as serde writes it");
    let too_many = codec::encode(&(1_u32, 127_u64, 1_000_000_000_u32));
    assert!(codec::decode::<Retry>(&too_many).is_err());
    let exact = codec::encode(&(1_u32, 127_u64, 999_999_999_u32));
    assert_eq!(exact, bytes);
}
