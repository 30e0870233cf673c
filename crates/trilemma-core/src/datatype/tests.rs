//! Limits, words and encodings of data types.

use super::*;
use crate::data::{Command, Mutation};

#[test]
fn an_update_names_its_type_and_is_limited() {
    let key = |size: usize| Key::from("k".repeat(size));
    assert_eq!(Update::Add(1).validate(&key(TYPED_KEY_BYTES_MAX)), Ok(()));
    assert!(matches!(
        Update::Add(1).validate(&key(TYPED_KEY_BYTES_MAX + 1)),
        Err(Reason::TooLarge { limit: 1024, .. })
    ));
    assert_eq!(Update::Insert(key(ELEMENT_BYTES_MAX)).validate(&key(1)), Ok(()));
    assert_eq!(
        Update::Insert(Key::default()).validate(&key(1)),
        Ok(()),
        "an empty element"
    );
    for of in [Update::Insert, Update::Remove, Update::Unassign] {
        assert!(of(key(ELEMENT_BYTES_MAX + 1)).validate(&key(1)).is_err());
    }
    let assign = |size: usize| Update::Assign {
        field: key(1),
        value: vec![0; size].into(),
    };
    assert_eq!(assign(VALUE_BYTES_MAX).validate(&key(1)), Ok(()));
    assert!(assign(VALUE_BYTES_MAX + 1).validate(&key(1)).is_err());
    let of: Vec<DataType> = [
        Update::Reset,
        Update::Spend(1),
        Update::Remove(key(1)),
        assign(1),
        Update::Raise(1),
    ]
    .iter()
    .map(Update::of)
    .collect();
    assert_eq!(of, DataType::ALL[..5]);
}

#[test]
fn a_command_of_updates_is_validated_with_its_parts() {
    assert_eq!(Command::update("k", Update::Add(1)).validate(), Ok(()));
    assert!(
        Command::update("", Update::Add(1)).validate().is_err(),
        "an empty key"
    );
    let long = Update::Insert("e".repeat(ELEMENT_BYTES_MAX + 1).into());
    assert!(Command::update("k", long).validate().is_err());
    let command = Command::update("key", Update::Insert("four".into()));
    assert_eq!(command.size(), 3 + 4 + 16);
    assert!(matches!(&command.mutations[0], Mutation::Update { .. }));
}

#[test]
fn readings_travel_as_values() {
    for number in [0, 1, -1, i128::MAX, i128::MIN].map(Number) {
        assert_eq!(Number::from_value(&number.to_value()), Ok(number));
    }
    let rights = BTreeMap::from([(NodeId(1), 4), (NodeId(2), 0), (NodeId(3), 7)]);
    let escrow = Escrow::new(11, &rights, 2);
    assert_eq!(Escrow::from_value(&escrow.to_value()), Ok(escrow.clone()));
    assert_eq!(
        escrow.to_string(),
        "node 1 has 4, node 3 has 7, 2 are lost with a disk"
    );
    assert!(Number::from_value(&"text".into()).is_err() && Escrow::from_value(&"".into()).is_err());
}
