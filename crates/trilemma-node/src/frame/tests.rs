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
