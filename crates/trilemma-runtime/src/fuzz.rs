//! Doors to private decoders, for the fuzz targets of `trilemma-fuzz` (feature `fuzz`). Not an interface.

use bytes::{Bytes, BytesMut};
use trilemma_core::{KeyspaceId, codec};

use crate::recovery::NodeRecord;
use crate::wire::{put_item, take_item};

/// Takes a peer's frame apart into its items, and says why if what is left is not an item.
pub fn items(mut frame: Bytes) -> (Vec<(KeyspaceId, Bytes)>, Result<(), &'static str>) {
    let mut items = Vec::new();
    loop {
        match take_item(&mut frame) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, Ok(())),
            Err(why) => return (items, Err(why)),
        }
    }
}

/// Makes a frame of items.
#[must_use]
pub fn frame(items: &[(KeyspaceId, Bytes)]) -> Bytes {
    let mut frame = BytesMut::new();
    for (keyspace, bytes) in items {
        put_item(&mut frame, *keyspace, bytes);
    }
    frame.freeze()
}

/// Decodes what a node logs about itself and encodes it again.
pub fn node_record(bytes: &[u8]) -> Result<Bytes, String> {
    let record: NodeRecord = codec::decode(bytes).map_err(|error| error.to_string())?;
    Ok(codec::encode(&record))
}
