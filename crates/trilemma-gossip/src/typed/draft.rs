//! What a command makes of keys and parts, before any of it happens: each change of a data type becomes puts and deletes of
//! parts. Later mutations of a command see what earlier ones of it have made.

use std::collections::BTreeMap;

use trilemma_core::data::map_bounds;
use trilemma_core::{Command, DataType, Key, KeyRange, Mutation, NodeId, NotApplied, Reason, Update, Value};

use super::counter::{self, Born, Sums};
use super::escrow::{Row, Rows};
use super::layout::{all_parts, check_key, data_type, family, part, parts};
use super::reading::{LOOKED_MAX, number_of};
use super::{Actor, reading};
use crate::config::Durability;
use crate::message::ITEMS_MAX;
use crate::shared::Shared;
use crate::store::Store;

/// Most parts of a counter. One for each disk that a node ever had, or, in a keyspace that does not sync, for each of its
/// incarnations; each costs a read of the counter a little. A counter that has so many takes nothing from further actors.
pub(crate) const PARTS_MAX: usize = ITEMS_MAX;

/// See the module.
pub(crate) struct Draft<'a> {
    store: &'a Store,
    durability: Durability,
    actor: Actor,
    /// Names a generation that begins here.
    born: Born,
    contents: BTreeMap<Key, Option<Value>>,
}

/// Refused for what the key holds now.
fn wrong(key: &Key, why: impl Into<String>) -> NotApplied {
    let (key, why) = (key.clone(), why.into());
    Reason::WrongType { key, why }.into()
}

impl<'a> Draft<'a> {
    /// What this command makes of the keys that it names: content, or `None` where it deletes.
    pub(crate) fn of(
        shared: &Shared,
        store: &'a Store,
        command: &Command,
    ) -> Result<BTreeMap<Key, Option<Value>>, NotApplied> {
        let mut draft = Draft {
            store,
            durability: shared.config.durability,
            actor: Actor::of(shared),
            born: (shared.config.incarnation, shared.coming_seq()),
            contents: BTreeMap::new(),
        };
        for mutation in &command.mutations {
            match mutation {
                Mutation::Put { key, value, .. } => draft.put(key, value)?,
                Mutation::Delete { key } => draft.delete(key)?,
                Mutation::Update { key, update } => draft.update(key, update)?,
            }
        }
        if draft.contents.len() > ITEMS_MAX {
            return Err(too_many(draft.contents.len()));
        }
        Ok(draft.contents)
    }

    fn put(&mut self, key: &Key, value: &Value) -> Result<(), NotApplied> {
        check_key(key).map_err(NotApplied::never)?;
        if self.store.has_parts() || !self.contents.is_empty() {
            self.check_plain(key)?;
        }
        self.contents.insert(key.clone(), Some(value.clone()));
        Ok(())
    }

    /// A plain value may not hide one of a data type.
    fn check_plain(&self, key: &Key) -> Result<(), NotApplied> {
        match self.held(key) {
            Some(of) if !self.exists(key) => Err(wrong(key, reading::holds(of))),
            _ => Ok(()),
        }
    }

    /// Deletes whatever the key holds, as far as this node has seen it.
    fn delete(&mut self, key: &Key) -> Result<(), NotApplied> {
        check_key(key).map_err(NotApplied::never)?;
        if self.store.has_parts() || !self.contents.is_empty() {
            let found = self.parts_in(&all_parts(key))?;
            if found
                .iter()
                .any(|part| data_type(key, part) == Some(DataType::BoundedCounter))
            {
                let why = "a bounded counter cannot be deleted: a node that has not learned of it could take what is not \
                           there any more";
                return Err(wrong(key, why));
            }
            self.contents.extend(found.into_iter().map(|part| (part, None)));
        }
        self.contents.insert(key.clone(), None);
        Ok(())
    }

    fn update(&mut self, key: &Key, update: &Update) -> Result<(), NotApplied> {
        check_key(key).map_err(NotApplied::never)?;
        let family = family(key, update.of());
        let named = |name: &[u8]| part(&family, name);
        match update {
            Update::Add(delta) => self.add(key, &family, *delta),
            Update::Reset => self.reset(key, &family),
            Update::Grant(_) | Update::Spend(_) | Update::Transfer { .. } => {
                self.change_row(key, &family, update)
            }
            Update::Insert(element) => self.set(key, update.of(), named(element), Value::default()),
            Update::Set(value) => self.set(key, update.of(), named(&[]), value.clone()),
            Update::Assign { field, value } => self.set(key, update.of(), named(field), value.clone()),
            Update::Remove(element) | Update::Unassign(element) => {
                self.check_typed(key, update.of())?;
                let part = named(element);
                if self.exists(&part) {
                    self.contents.insert(part, None);
                }
                Ok(())
            }
            Update::Raise(to) | Update::Lower(to) => {
                let part = named(&[]);
                let known = self.contents_of(&part).filter_map(number_of);
                let all = known.chain([*to]);
                let best = if update.of() == DataType::Maximum {
                    all.max()
                } else {
                    all.min()
                };
                let value = trilemma_core::codec::encode_vec(&best.unwrap_or(*to));
                self.set(key, update.of(), part, value.into())
            }
        }
    }

    /// Puts a part of a value, which begins to exist with it.
    fn set(&mut self, key: &Key, of: DataType, part: Key, value: Value) -> Result<(), NotApplied> {
        if !self.exists(&part) {
            self.check_typed(key, of)?;
        }
        self.contents.insert(part, Some(value));
        Ok(())
    }

    fn add(&mut self, key: &Key, family: &[u8], delta: i64) -> Result<(), NotApplied> {
        let part = part(family, &self.actor.name());
        let is_new = !self.exists(&part);
        if is_new {
            self.check_typed(key, DataType::Counter)?;
            self.check_room(key, family)?;
        }
        let own = if self.sees_own_write(&part) {
            self.sums(&part).pop()
        } else {
            None
        };
        let sums = own.unwrap_or(Sums::new(self.born));
        let Some(sums) = sums.add(delta) else {
            return Err(wrong(key, "the counter is at the end of its range; reset it"));
        };
        self.contents.insert(part, Some(sums.to_value()));
        Ok(())
    }

    /// Whether the last write of this actor to its part is still there.
    fn sees_own_write(&self, part: &Key) -> bool {
        match self.contents.get(part) {
            Some(content) => content.is_some(),
            None => self.store.shown(part).iter().any(|sibling| {
                let dot = sibling.item.dot;
                let is_own = dot.origin == self.actor.node && dot.incarnation >= self.actor.since;
                is_own && sibling.item.content.is_some()
            }),
        }
    }

    fn reset(&mut self, key: &Key, family: &[u8]) -> Result<(), NotApplied> {
        self.check_typed(key, DataType::Counter)?;
        for part in self.parts_in(&parts(family, &KeyRange::all()))? {
            let joined = self.sums(&part);
            // One that has nothing to reset is left alone: who writes it takes the place of its actor's last write.
            let rest: Vec<&Sums> = joined.iter().filter(|sums| sums.total() != Some(0)).collect();
            if let Some(last) = rest.last() {
                self.contents.insert(part, Some(last.reset().to_value()));
            }
        }
        Ok(())
    }

    /// The siblings of a part of a counter, joined.
    fn sums(&self, part: &Key) -> Vec<Sums> {
        counter::join(self.contents_of(part).filter_map(|content| Sums::decode(content)))
    }

    fn change_row(&mut self, key: &Key, family: &[u8], update: &Update) -> Result<(), NotApplied> {
        if self.durability != Durability::Fsync {
            return Err(NotApplied::never(Reason::Unsupported {
                asked: "a bounded counter, whose rights a restart must not forget".into(),
                strongest: "a counter without a bound; or choose durability = \"fsync\"".into(),
            }));
        }
        let own = part(family, &self.actor.name());
        if !self.exists(&own) {
            self.check_typed(key, DataType::BoundedCounter)?;
            self.check_room(key, family)?;
        }
        let rows = self.rows(family)?;
        let row = rows.0.get(&self.actor).cloned().unwrap_or_default();
        let rights = rows.rights(self.actor);
        let need = match update {
            Update::Spend(amount) | Update::Transfer { amount, .. } => *amount,
            _ => 0,
        };
        if u128::from(need) > rights {
            return Err(Reason::NotEnoughRights {
                key: key.clone(),
                node: self.actor.node,
                asked: need,
                here: u64::try_from(rights).unwrap_or(u64::MAX),
                elsewhere: rows.reading(Some(self.actor)).to_string(),
            }
            .into());
        }
        let row = match update {
            Update::Grant(amount) => row.grant(*amount),
            Update::Spend(amount) => row.spend(*amount),
            Update::Transfer { to, amount } => Some(transfer(key, &rows, self.actor, row, *to, *amount)?),
            _ => None,
        };
        let Some(row) = row else {
            return Err(wrong(key, "the bounded counter is at the end of its range"));
        };
        self.contents.insert(own, Some(row.to_value()));
        Ok(())
    }

    fn rows(&self, family: &[u8]) -> Result<Rows, NotApplied> {
        let mut rows = Rows::default();
        for part in self.parts_in(&parts(family, &KeyRange::all()))? {
            let contents = self.contents_of(&part).filter_map(|content| Row::decode(content));
            let Some(row) = contents.reduce(|row, other| row.join(&other)) else {
                continue;
            };
            if let Some(actor) = Actor::named(&part[family.len()..]) {
                rows.0.insert(actor, row);
            }
        }
        Ok(rows)
    }

    /// Whether a counter may have one part more.
    fn check_room(&self, key: &Key, family: &[u8]) -> Result<(), NotApplied> {
        let count = self.parts_in(&parts(family, &KeyRange::all()))?.len();
        if count < PARTS_MAX {
            return Ok(());
        }
        let why = format!(
            "it has {count} parts, one for each disk, or unsynced incarnation, of a node that has changed it; use another key"
        );
        Err(wrong(key, why))
    }

    /// A value of one type may not hide a plain one or one of another type.
    fn check_typed(&self, key: &Key, of: DataType) -> Result<(), NotApplied> {
        let is_held = self.is_any_in(&parts(&family(key, of), &KeyRange::all()));
        if is_held {
            return Ok(());
        }
        if self.exists(key) {
            return Err(wrong(key, format!("it holds a plain value, not a {of}")));
        }
        match self.held(key) {
            Some(other) => Err(wrong(key, format!("it holds a {other}, not a {of}"))),
            None => Ok(()),
        }
    }

    /// What a key or part holds: one content, or several that are concurrent.
    fn contents_of(&self, key: &Key) -> impl Iterator<Item = &Value> {
        let drafted = self.contents.get(key);
        let shown = drafted.is_none().then(|| self.store.shown(key));
        let shown = shown.into_iter().flatten();
        let shown = shown.filter_map(|sibling| sibling.item.content.as_ref());
        drafted.and_then(Option::as_ref).into_iter().chain(shown)
    }

    /// Whether a key or part is there for readers.
    fn exists(&self, key: &Key) -> bool {
        match self.contents.get(key) {
            Some(content) => content.is_some(),
            None => self.store.get(key).is_some(),
        }
    }

    /// The data type that a key holds, if any.
    fn held(&self, key: &Key) -> Option<DataType> {
        let drafted = self.drafted_in(&all_parts(key)).next();
        let drafted = drafted.and_then(|part| data_type(key, part));
        drafted.or_else(|| self.store.held(key, |part| self.contents.contains_key(part)))
    }

    fn is_any_in(&self, range: &KeyRange) -> bool {
        let is_drafted = self.drafted_in(range).next().is_some();
        is_drafted
            || self
                .store
                .first_part(range, |part| self.contents.contains_key(part))
                .is_some()
    }

    /// The parts in a range that this command has put.
    fn drafted_in(&self, range: &KeyRange) -> impl Iterator<Item = &Key> {
        let drafted = self.contents.range::<[u8], _>(map_bounds(range));
        drafted
            .filter(|(_, content)| content.is_some())
            .map(|(key, _)| key)
    }

    /// All parts in a range that are there, unless they are too many for one command.
    fn parts_in(&self, range: &KeyRange) -> Result<Vec<Key>, NotApplied> {
        let (found, is_all) = self.store.parts_in(range, LOOKED_MAX);
        let kept = found.into_iter().filter(|part| !self.contents.contains_key(part));
        let found: Vec<Key> = kept.chain(self.drafted_in(range).cloned()).collect();
        if !is_all || found.len() > ITEMS_MAX {
            return Err(too_many(found.len()));
        }
        Ok(found)
    }
}

fn too_many(parts: usize) -> NotApplied {
    NotApplied::never(Reason::TooLarge {
        what: "the number of parts that the command changes; remove elements first, some in each command"
            .into(),
        size: parts as u64,
        limit: ITEMS_MAX as u64,
    })
}

fn transfer(
    key: &Key,
    rows: &Rows,
    from: Actor,
    mut row: Row,
    to: NodeId,
    amount: u64,
) -> Result<Row, NotApplied> {
    if to == from.node {
        return Err(wrong(key, format!("node {to} gives rights to itself")));
    }
    let Some(to_actor) = rows.newest_of(to) else {
        let why = format!("node {to} has not changed it yet, as far as is known here; grant 0 there first");
        return Err(wrong(key, why));
    };
    row.give(to_actor, amount.into());
    Ok(row)
}
