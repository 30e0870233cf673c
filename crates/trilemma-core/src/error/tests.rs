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
