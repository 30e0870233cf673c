//! Handles on values of data types: what they hold is what every node has added, in any order and on any side of a partition.
//!
//! Only keyspaces of backend `gossip` have them, so their handles come from a [`Keyspace`] that was opened as
//! [`Needs::Available`](crate::Needs::Available). Each change is one operation like any other write: durable as the keyspace
//! promises, with a receipt, and counted once however often it is repeated under its id ([`Keyspace::write_as`] with
//! [`Command::update`]). A reading is what the node that answers has now.

use std::collections::BTreeMap;

use trilemma_core::datatype::{Escrow, Number};
use trilemma_core::read::RANGE_ENTRIES_MAX;
use trilemma_core::{
    Command, DataType, Entry, Key, KeyRange, NodeId, Query, ReadError, ReadRequest, Reason, Receipt, Update,
    Value,
};

use crate::error::Result;
use crate::keyspace::Keyspace;

/// One key of a keyspace and what it holds.
#[derive(Clone, Debug)]
struct Handle {
    keyspace: Keyspace,
    key: Key,
}

impl Handle {
    async fn update(&self, update: Update) -> Result<Receipt> {
        self.keyspace
            .write(Command::update(self.key.clone(), update))
            .await
    }

    async fn page(&self, of: DataType, range: KeyRange) -> Result<(Vec<Entry>, bool)> {
        let query = Query::Typed {
            key: self.key.clone(),
            of,
            range,
            limit: RANGE_ENTRIES_MAX,
        };
        let level = self.keyspace.read_level();
        let reply = self.keyspace.read(ReadRequest { query, level }).await?;
        Ok((reply.entries, reply.more))
    }

    /// The value of the one entry that a number reads as, if it exists.
    async fn value(&self, of: DataType) -> Result<Option<Value>> {
        let (entries, _) = self.page(of, KeyRange::all()).await?;
        Ok(entries.into_iter().next().map(|entry| entry.state.value))
    }

    async fn number(&self, of: DataType) -> Result<Option<i128>> {
        let value = self.value(of).await?;
        let number = value.map(|value| Number::from_value(&value).map_err(|_| unreadable(of)));
        Ok(number.transpose()?.map(|Number(number)| number))
    }

    /// All elements, page by page: later pages may show later changes.
    async fn entries(&self, of: DataType) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        let mut range = KeyRange::all();
        loop {
            let (entries, more) = self.page(of, range.clone()).await?;
            all.extend(entries);
            match all.last() {
                Some(last) if more => range.start = [&last.key[..], &[0]].concat().into(),
                _ => return Ok(all),
            }
        }
    }

    async fn delete(&self) -> Result<Receipt> {
        self.keyspace.delete(self.key.clone()).await
    }
}

fn unreadable(of: DataType) -> ReadError {
    let what = format!("the answer of the node is no reading of a {of}");
    ReadError::from(Reason::Invalid { what })
}

/// A number that every node adds to. See [`Keyspace::counter`].
#[derive(Clone, Debug)]
pub struct Counter(Handle);

impl Counter {
    /// Adds; a negative number takes away. Additions on all sides of a partition all count.
    pub async fn add(&self, delta: i64) -> Result<Receipt> {
        self.0.update(Update::Add(delta)).await
    }

    /// What was added, as far as the node that answers knows; 0 if nothing was.
    pub async fn get(&self) -> Result<i128> {
        Ok(self.0.number(DataType::Counter).await?.unwrap_or_default())
    }

    /// Takes away exactly what the node that executes it has seen. What others add meanwhile stays.
    pub async fn reset(&self) -> Result<Receipt> {
        self.0.update(Update::Reset).await
    }

    /// Removes the counter, which then costs nothing. An addition that the delete has not seen brings back all that its node has
    /// added: to begin at zero again, [`Counter::reset`].
    pub async fn delete(&self) -> Result<Receipt> {
        self.0.delete().await
    }
}

/// A number that is never below zero, in any partition. See [`Keyspace::bounded_counter`].
#[derive(Clone, Debug)]
pub struct BoundedCounter(Handle);

impl BoundedCounter {
    /// Adds, and gives the node that executes it the right to take as much away.
    pub async fn grant(&self, amount: u64) -> Result<Receipt> {
        self.0.update(Update::Grant(amount)).await
    }

    /// Takes away. A node that has not the right to so much refuses with [`Reason::NotEnoughRights`], which says who has which
    /// rights; a client with several servers asks the next one.
    pub async fn spend(&self, amount: u64) -> Result<Receipt> {
        self.0.update(Update::Spend(amount)).await
    }

    /// Gives rights of the node that executes it to another, which must have changed this counter before (`grant(0)` is enough).
    pub async fn transfer(&self, to: NodeId, amount: u64) -> Result<Receipt> {
        self.0.update(Update::Transfer { to, amount }).await
    }

    /// How much there is, as far as the node that answers knows. There may be less by now, never less than zero.
    pub async fn get(&self) -> Result<u128> {
        Ok(self.reading().await?.value)
    }

    /// The nodes that may take something away, and how much each.
    pub async fn rights(&self) -> Result<BTreeMap<NodeId, u128>> {
        Ok(self.reading().await?.rights().collect())
    }

    /// All of the above, and rights that are lost with a disk.
    pub async fn reading(&self) -> Result<Escrow> {
        let value = self.0.value(DataType::BoundedCounter).await?;
        let of = DataType::BoundedCounter;
        let reading = value.map(|value| Escrow::from_value(&value).map_err(|_| unreadable(of)));
        Ok(reading.transpose()?.unwrap_or_default())
    }
}

/// A set of elements, each up to [`ELEMENT_BYTES_MAX`](crate::ELEMENT_BYTES_MAX) bytes. See [`Keyspace::set`].
#[derive(Clone, Debug)]
pub struct Set(Handle);

impl Set {
    /// Adds an element. Of an addition and a concurrent removal of one element the addition wins.
    pub async fn insert(&self, element: impl Into<Key>) -> Result<Receipt> {
        self.0.update(Update::Insert(element.into())).await
    }

    /// Removes an element, as far as the node that executes it has seen it added. That it was not there is not an error.
    pub async fn remove(&self, element: impl Into<Key>) -> Result<Receipt> {
        self.0.update(Update::Remove(element.into())).await
    }

    /// Whether the element is in the set, as far as the node that answers knows.
    pub async fn contains(&self, element: impl Into<Key>) -> Result<bool> {
        let range = KeyRange::key(&element.into());
        Ok(!self.0.page(DataType::Set, range).await?.0.is_empty())
    }

    /// All elements, in the order of their bytes.
    pub async fn members(&self) -> Result<Vec<Key>> {
        let entries = self.0.entries(DataType::Set).await?;
        Ok(entries.into_iter().map(|entry| entry.key).collect())
    }

    /// Removes all elements that the node that executes it has seen, of a set of at most 4,096.
    pub async fn delete(&self) -> Result<Receipt> {
        self.0.delete().await
    }
}

/// Fields with a value each. See [`Keyspace::map`].
#[derive(Clone, Debug)]
pub struct Map(Handle);

impl Map {
    /// Sets a field. Of two concurrent assignments of one field the newer wins, as with plain keys; of an assignment and a
    /// concurrent removal the assignment.
    pub async fn put(&self, field: impl Into<Key>, value: impl Into<Value>) -> Result<Receipt> {
        let (field, value) = (field.into(), value.into());
        self.0.update(Update::Assign { field, value }).await
    }

    /// Removes a field, as far as the node that executes it has seen it assigned. That it was not there is not an error.
    pub async fn remove(&self, field: impl Into<Key>) -> Result<Receipt> {
        self.0.update(Update::Unassign(field.into())).await
    }

    /// The value of a field.
    pub async fn get(&self, field: impl Into<Key>) -> Result<Option<Value>> {
        let range = KeyRange::key(&field.into());
        let (entries, _) = self.0.page(DataType::Map, range).await?;
        Ok(entries.into_iter().next().map(|entry| entry.state.value))
    }

    /// All fields with their values, in the order of the fields' bytes.
    pub async fn fields(&self) -> Result<Vec<(Key, Value)>> {
        let entries = self.0.entries(DataType::Map).await?;
        Ok(entries
            .into_iter()
            .map(|entry| (entry.key, entry.state.value))
            .collect())
    }

    /// Removes all fields that the node that executes it has seen, of a map of at most 4,096.
    pub async fn delete(&self) -> Result<Receipt> {
        self.0.delete().await
    }
}

/// One value, of which the newest concurrent write is read and the others are kept until the next. See [`Keyspace::register`].
#[derive(Clone, Debug)]
pub struct Register(Handle);

impl Register {
    /// Sets the value. It replaces all that the node that executes it has seen.
    pub async fn set(&self, value: impl Into<Value>) -> Result<Receipt> {
        self.0.keyspace.put(self.0.key.clone(), value).await
    }

    /// The value that wins: the one with the newest stamp.
    pub async fn get(&self) -> Result<Option<Value>> {
        self.0.keyspace.get(self.0.key.clone()).await
    }

    /// Every concurrent value, the winner first.
    pub async fn values(&self) -> Result<Vec<Value>> {
        let entries = self.0.keyspace.siblings(self.0.key.clone()).await?;
        Ok(entries.into_iter().map(|entry| entry.state.value).collect())
    }

    /// Removes the value. A concurrent write with a newer stamp survives.
    pub async fn delete(&self) -> Result<Receipt> {
        self.0.delete().await
    }
}

/// One value, or several that were written concurrently. See [`Keyspace::multi_value`].
#[derive(Clone, Debug)]
pub struct MultiValue(Handle);

impl MultiValue {
    /// Sets the value. It replaces all that the node that executes it has seen, and nothing else.
    pub async fn set(&self, value: impl Into<Value>) -> Result<Receipt> {
        self.0.update(Update::Set(value.into())).await
    }

    /// Every value that no other has replaced, the newest first.
    pub async fn values(&self) -> Result<Vec<Value>> {
        let (entries, _) = self.0.page(DataType::MultiValue, KeyRange::all()).await?;
        Ok(entries.into_iter().map(|entry| entry.state.value).collect())
    }

    /// Removes the values that the node that executes it has seen.
    pub async fn delete(&self) -> Result<Receipt> {
        self.0.delete().await
    }
}

/// The greatest, or the least, number that anybody has reported. See [`Keyspace::maximum`] and [`Keyspace::minimum`].
#[derive(Clone, Debug)]
pub struct Extreme(Handle, DataType);

impl Extreme {
    /// Reports a number.
    pub async fn report(&self, number: i64) -> Result<Receipt> {
        let update = match self.1 {
            DataType::Minimum => Update::Lower(number),
            _ => Update::Raise(number),
        };
        self.0.update(update).await
    }

    /// The greatest or least report that the node that answers knows of.
    pub async fn get(&self) -> Result<Option<i128>> {
        self.0.number(self.1).await
    }

    /// Forgets the reports that the node that executes it has seen.
    pub async fn delete(&self) -> Result<Receipt> {
        self.0.delete().await
    }
}

impl Keyspace {
    fn handle(&self, key: impl Into<Key>) -> Handle {
        Handle {
            keyspace: self.clone(),
            key: key.into(),
        }
    }

    /// A counter. It exists from its first addition.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let visits = keyspace.counter("visits");
    /// visits.add(1).await?;
    /// println!("{} visits", visits.get().await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn counter(&self, key: impl Into<Key>) -> Counter {
        Counter(self.handle(key))
    }

    /// A counter that is never below zero, in any partition: each node takes only what it has the right to.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let seats = keyspace.bounded_counter("flight/7/seats");
    /// seats.grant(100).await?;
    /// seats.spend(1).await?;                               // refused where this node has no rights left
    /// for (node, amount) in seats.rights().await? {
    ///     println!("node {node} may sell {amount}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn bounded_counter(&self, key: impl Into<Key>) -> BoundedCounter {
        BoundedCounter(self.handle(key))
    }

    /// A set in which additions win.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let tags = keyspace.set("article/7/tags");
    /// tags.insert("rust").await?;
    /// tags.remove("draft").await?;
    /// println!("{:?}", tags.members().await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn set(&self, key: impl Into<Key>) -> Set {
        Set(self.handle(key))
    }

    /// A map of fields to values.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let profile = keyspace.map("user/ada");
    /// profile.put("mail", "ada@example.org").await?;
    /// println!("{:?}", profile.get("mail").await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn map(&self, key: impl Into<Key>) -> Map {
        Map(self.handle(key))
    }

    /// A plain key as a register, with its concurrent values.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let title = keyspace.register("article/7/title");
    /// title.set("Partitions").await?;
    /// for value in title.values().await? {
    ///     println!("{value}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn register(&self, key: impl Into<Key>) -> Register {
        Register(self.handle(key))
    }

    /// A register that keeps every concurrent value, however many and however old, until a write that has seen it.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let cart = keyspace.multi_value("cart/ada");
    /// let merged = cart.values().await?.iter().map(|value| value.to_string()).collect::<Vec<_>>();
    /// cart.set(merged.join(", ")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn multi_value(&self, key: impl Into<Key>) -> MultiValue {
        MultiValue(self.handle(key))
    }

    /// The greatest number that anybody has reported.
    ///
    /// ```no_run
    /// # async fn example(keyspace: trilemma::Keyspace) -> trilemma::Result<()> {
    /// let high = keyspace.maximum("load/high");
    /// high.report(17).await?;
    /// assert!(high.get().await? >= Some(17));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn maximum(&self, key: impl Into<Key>) -> Extreme {
        Extreme(self.handle(key), DataType::Maximum)
    }

    /// The least number that anybody has reported.
    #[must_use]
    pub fn minimum(&self, key: impl Into<Key>) -> Extreme {
        Extreme(self.handle(key), DataType::Minimum)
    }
}
