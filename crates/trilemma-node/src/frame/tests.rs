//! Items go in and come out; damaged frames are refused.

use super::*;

#[test]
fn items_come_out_as_they_went_in() {
    let mut frame = BytesMut::new();
    put_item(&mut frame, KeyspaceId(7), b"one");
    put_item(&mut frame, KeyspaceId(u32::MAX), b"");
    let mut frame = frame.freeze();
    assert_eq!(
        take_item(&mut frame),
        Ok(Some((KeyspaceId(7), Bytes::from_static(b"one"))))
    );
    assert_eq!(
        take_item(&mut frame),
        Ok(Some((KeyspaceId(u32::MAX), Bytes::new())))
    );
    assert_eq!(take_item(&mut frame), Ok(None));
}

#[test]
fn a_frame_cut_anywhere_is_refused_or_shorter_but_never_wrong() {
    let mut whole = BytesMut::new();
    put_item(&mut whole, KeyspaceId(1), b"abc");
    for length in 1..whole.len() {
        let mut cut = Bytes::copy_from_slice(&whole[..length]);
        assert!(take_item(&mut cut).is_err(), "cut at {length}");
    }
}

fn message(to: u32, lane: Lane, bytes: &'static [u8]) -> Envelope {
    Envelope {
        keyspace: KeyspaceId(7),
        to: NodeId(to),
        lane,
        kind: "test",
        bytes: Bytes::from_static(bytes),
    }
}

/// The frames, each with its receiver, lane and messages.
fn packed(mut coalescer: Coalescer, messages: Vec<Envelope>) -> Vec<(u32, Lane, Vec<Bytes>)> {
    let mut frames = Vec::new();
    coalescer.pack(messages, &mut |to, lane, mut frame| {
        let mut items = Vec::new();
        while let Some((_, bytes)) = take_item(&mut frame).expect("it is a frame") {
            items.push(bytes);
        }
        frames.push((to.0, lane, items));
    });
    frames
}

#[test]
fn the_messages_of_a_turn_leave_together_by_peer_and_lane() {
    let messages = || {
        vec![
            message(2, Lane::Control, b"a"),
            message(3, Lane::Control, b"b"),
            message(2, Lane::Log, b"c"),
            message(2, Lane::Control, b"d"),
        ]
    };
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|bytes| Bytes::from_static(bytes));
    let together = vec![
        (2, Lane::Control, vec![a.clone(), d.clone()]),
        (2, Lane::Log, vec![c.clone()]),
        (3, Lane::Control, vec![b.clone()]),
    ];
    assert_eq!(packed(Coalescer::default(), messages()), together);
    let alone = vec![
        (2, Lane::Control, vec![a]),
        (2, Lane::Control, vec![d]),
        (2, Lane::Log, vec![c]),
        (3, Lane::Control, vec![b]),
    ];
    assert_eq!(packed(Coalescer::new(1), messages()), alone);
}

#[test]
fn a_datagram_that_is_too_large_takes_the_control_lane() {
    let large: &[u8] = &[0; DATAGRAM_BYTES];
    let messages = vec![
        message(2, Lane::Datagram, large),
        message(2, Lane::Datagram, b"small"),
    ];
    let frames = packed(Coalescer::default(), messages);
    let lanes: Vec<(Lane, usize)> = frames
        .iter()
        .map(|(_, lane, items)| (*lane, items.len()))
        .collect();
    assert_eq!(lanes, [(Lane::Control, 1), (Lane::Datagram, 1)]);
}
