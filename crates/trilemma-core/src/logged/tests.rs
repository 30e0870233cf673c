//! Commands of a log against the commands that they are of.

use super::*;
use crate::codec;
use crate::data::Guard;
use crate::id::Version;

#[test]
fn a_command_in_a_log_is_the_command_and_has_its_bytes() {
    let two = Command {
        guards: Vec::new(),
        mutations: vec![
            Mutation::Delete { key: "a".into() },
            Mutation::Delete { key: "b".into() },
        ],
    };
    let guarded = Command {
        guards: vec![Guard::Version {
            key: "a".into(),
            is: Version(7),
        }],
        mutations: vec![Mutation::Delete { key: "b".into() }],
    };
    let commands = [
        Command::default(),
        Command::put("key", "value"),
        Command::put(vec![b'k'; 100], vec![b'v'; 1000]),
        Command::delete("key"),
        Command::compare_and_set("key", Some("old".into()), Some("new".into())),
        two,
        guarded,
    ];
    for command in commands {
        let logged = LoggedCommand::from(command.clone());
        assert_eq!(logged.to_command(), command);
        assert_eq!(
            CommandRef::from(&logged),
            CommandRef::from(&command),
            "parts of {command:?}"
        );
        assert_eq!(logged.size(), command.size());
        let bytes = codec::encode(&logged);
        assert_eq!(bytes, codec::encode(&command));
        assert_eq!(codec::decode::<LoggedCommand>(&bytes).unwrap(), logged);
    }
}
