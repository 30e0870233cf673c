//! Streams between nodes and of clients: frames, hellos, items, certificates.

use bytes::{Bytes, BytesMut};
use trilemma_core::{KeyspaceId, codec};
use trilemma_fuzz::mutate::mutated;
use trilemma_fuzz::source::Source;
use trilemma_fuzz::wire::frugal;
use trilemma_node::frame::{put_item, take_item};
use trilemma_transport::fuzz::{frames, hello, subject};
use trilemma_transport::pki::Authority;

targets! {
    framed(2000, 512) => framed_of;
    raw_stream(2000, 512) => raw_stream_of;
    hellos(2000, 256) => hellos_of;
    frame_items(2000, 512) => frame_items_of;
    certificates(2000, 256) => certificates_of();
    pem(500, 256) => pem_of();
}

/// Frames that were written come back whole, however the stream was cut into pieces.
fn framed_of(input: &[u8]) {
    let source = &mut Source::new(input);
    let cut = 1 + source.below(40);
    let mut written = Vec::new();
    let mut stream = Vec::new();
    while !source.is_empty() {
        let length = source.below(80);
        let payload = source.bytes(length);
        stream.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        stream.extend_from_slice(payload);
        written.push(payload);
    }
    let pieces: Vec<&[u8]> = stream.chunks(cut).collect();
    let (read, end) = frames(&pieces, 80);
    assert_eq!(read, written);
    assert_eq!(end, Ok(0));
}

/// Any bytes: what comes out was in the stream, in order, and no frame is above the limit.
fn raw_stream_of(input: &[u8]) {
    let source = &mut Source::new(input);
    let (cut, limit) = (1 + source.below(40), source.below(300));
    // Small lengths are rare among random bytes; without them nothing would be split.
    let mut stream = source.rest().to_vec();
    if let Some(prefix) = stream.get_mut(1..4) {
        prefix.fill(0);
    }
    let pieces: Vec<&[u8]> = stream.chunks(cut).collect();
    // A reader takes its buffer in large pieces, whatever arrives.
    const BUFFER_BYTES: usize = 32 * 1024;
    let (read, end) = frugal(BUFFER_BYTES + stream.len(), || frames(&pieces, limit));
    let mut at = 0;
    for payload in &read {
        assert!(payload.len() <= limit);
        assert_eq!(stream[at..at + 4], (payload.len() as u32).to_le_bytes());
        assert_eq!(stream[at + 4..at + 4 + payload.len()], payload[..]);
        at += 4 + payload.len();
    }
    if let Ok(waiting) = end {
        assert_eq!(waiting, stream.len() - at, "nothing is lost");
    }
}

fn hellos_of(input: &[u8]) {
    // Version, process (node, incarnation, disk, nonce), members (their number is a byte of its own), digest and text of the table.
    let members = (3_u8, [1_u32, 3, 900]);
    let sample = codec::encode(&(
        20_u32,
        (3_u32, 70_000_u64, 300_u64, 7_u64),
        members,
        [7_u8; 32],
        "locks raft\ncarts gossip\n",
    ));
    assert!(hello(&sample).is_ok(), "the sample is a hello");
    let bytes = mutated(&mut Source::new(input), &[sample]);
    if let Ok(encoded) = frugal(bytes.len(), || hello(&bytes)) {
        assert!(encoded.len() <= bytes.len());
        assert_eq!(hello(&encoded), Ok(encoded));
    }
}

/// What a frame is taken apart into is what it was made of; after any change, a frame made of it is its beginning.
fn frame_items_of(input: &[u8]) {
    let source = &mut Source::new(input);
    let mut made = Vec::new();
    for _ in 0..source.below(5) {
        let length = source.below(40);
        let keyspace = KeyspaceId(source.u64() as u32);
        made.push((keyspace, Bytes::copy_from_slice(source.bytes(length))));
    }
    let whole = frame(&made);
    assert_eq!(items(whole.clone()), (made, Ok(())));
    let bytes = Bytes::from(mutated(source, &[whole]));
    let (found, end) = frugal(bytes.len(), || items(bytes.clone()));
    let remade = frame(&found);
    assert!(bytes.starts_with(&remade));
    assert_eq!(end.is_ok(), remade.len() == bytes.len());
}

/// A peer's certificate. TLS has verified it before, but the cluster's authority may have signed odd ones.
fn certificates_of() -> impl Fn(&[u8]) {
    let (_, issued) = issued();
    move |input| {
        let source = &mut Source::new(input);
        let bytes = mutated(source, &[&issued]);
        if let Ok(uri) = frugal(bytes.len(), || subject(&bytes)) {
            assert!(uri.starts_with("trilemma://"), "{uri}");
        }
    }
}

/// Identity files of a user.
fn pem_of() -> impl Fn(&[u8]) {
    let (pem, _) = issued();
    move |input| {
        let source = &mut Source::new(input);
        let parts: [Vec<u8>; 3] = std::array::from_fn(|_| mutated(source, &pem));
        if let Ok(identity) = trilemma_transport::Identity::from_pem(&parts[0], &parts[1], &parts[2])
            && let Ok(subject) = identity.subject()
        {
            assert!(!subject.to_string().is_empty());
        }
    }
}

/// PEM texts (authority, certificate, key) and the certificate as DER.
fn issued() -> (Vec<String>, Vec<u8>) {
    let authority = Authority::generate("shop").expect("an authority");
    let issued = authority
        .issue_node("shop", trilemma_core::NodeId(3))
        .expect("a certificate");
    let pem = vec![
        authority.certificate_pem().to_owned(),
        issued.certificate_pem.clone(),
        issued.key_pem.clone(),
    ];
    (pem, der(&issued.certificate_pem))
}

/// The bytes of the first PEM block: base64 without its first and last lines.
fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().skip(1).take_while(|line| !line.starts_with('-'));
    let digits = lines.flat_map(str::bytes).filter_map(|digit| match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let digits: Vec<u8> = digits.collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    assert!(subject(&bytes).is_ok(), "the sample is a certificate");
    bytes
}

/// Makes a frame of items.
fn frame(items: &[(KeyspaceId, Bytes)]) -> Bytes {
    let mut frame = BytesMut::new();
    for (keyspace, bytes) in items {
        put_item(&mut frame, *keyspace, bytes);
    }
    frame.freeze()
}

/// Takes a frame apart, and says why if what is left is not an item.
fn items(mut frame: Bytes) -> (Vec<(KeyspaceId, Bytes)>, Result<(), &'static str>) {
    let mut items = Vec::new();
    loop {
        match take_item(&mut frame) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, Ok(())),
            Err(why) => return (items, Err(why)),
        }
    }
}
