//! What happens to a node between two turns.

use std::time::Duration;

use bytes::Bytes;
use trilemma_core::host::GroupInput;
use trilemma_core::pending::PendingKind;
use trilemma_core::{
    DiskId, KeyspaceId, NodeId, Now, PeerView, ProcessId, Proposal, Reason, Request, WatchSpec, codec,
};
use trilemma_storage::snapshot::Summary;
use trilemma_storage::{LogError, LogEvent, SnapshotError};

use super::{Node, Opening};
use crate::config::{MEMBERSHIP, NODE_RECORDS};
use crate::frame::take_item;
use crate::message::NodeMessage;
use crate::record::NodeRecord;
use crate::replica::Replica;
use crate::watchers::{Destination, LinkId, ReaderEvent, WatchId};

impl<W> Node<W> {
    /// The first input: state is loaded, peers may be talked to.
    pub fn start(&mut self, now: Now) {
        for index in 0..self.replicas.len() {
            self.step(index, now, GroupInput::Start);
        }
        if let Some(members) = &mut self.members {
            members.start(now);
        }
    }

    /// The node is going to stop: keyspaces hand over what others would have to wait for. Go on with turns while
    /// [`Node::is_handing_over`].
    pub fn on_stopping(&mut self, now: Now) {
        for index in 0..self.replicas.len() {
            self.step(index, now, GroupInput::Stopping);
        }
    }

    /// Whether a keyspace still hands over, after [`Node::on_stopping`]. It ends by itself within some hundred milliseconds,
    /// the election timeout of `raft`.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.replicas
            .iter()
            .any(|replica| replica.engine.is_handing_over())
    }

    /// A request of a client. It is answered once, within `timeout` and a grace.
    pub fn on_request(
        &mut self,
        now: Now,
        keyspace: KeyspaceId,
        timeout: Duration,
        request: Request,
        reply_to: W,
    ) {
        let kind = PendingKind::of(&request);
        let (is_write, bytes) = match &request {
            Request::Write { command, .. } => (true, command.size()),
            Request::Read(_) | Request::Outcome { .. } => (false, 0),
        };
        let refusal = match self.find(keyspace) {
            None => Err(self.no_such(keyspace)),
            Some(index) => {
                let descriptor = self.replicas[index].backend().descriptor();
                let checked = request.validate();
                checked
                    .and_then(|()| descriptor.check_data_types(&request))
                    .map(|()| index)
            }
        };
        let refusal = refusal.and_then(|index| {
            let (waiting, held) = (self.pending.len(), self.pending.bytes());
            match self.admission.refusal(is_write, waiting, held + bytes) {
                Some(reason) => Err(reason),
                None => Ok(index),
            }
        });
        match refusal {
            Err(reason) => self.replies.push((reply_to, kind.refused(reason))),
            Ok(index) => {
                let deadline = now.instant + timeout;
                let ticket = self.pending.add(reply_to, kind, deadline, bytes);
                let proposal = Proposal {
                    ticket,
                    deadline,
                    request,
                };
                self.step(index, now, GroupInput::Propose(proposal));
            }
        }
    }

    fn no_such(&self, keyspace: KeyspaceId) -> Reason {
        let names: Vec<&str> = self.replicas.iter().map(Replica::name).collect();
        Reason::NoSuchKeyspace {
            name: keyspace.to_string(),
            configured: names.join(", "),
        }
    }

    /// A frame of a peer. The host knows the sender's node by its certificate, and the rest from its hello; see
    /// [`crate::Peers::admit`].
    pub fn on_frame(&mut self, now: Now, from: &ProcessId, mut frame: Bytes) {
        let heard = match self.peers.hear(from) {
            Ok(heard) => heard,
            Err(why) => {
                tracing::debug!(%from, %why, "a frame is dropped");
                return;
            }
        };
        self.records.extend(heard.keep.map(NodeRecord::Met));
        if heard.count_changed
            && let Some(why) = self.peers.refusal(from.node)
        {
            tracing::error!(%from, "{why}");
        }
        let mut count_changed = heard.count_changed;
        loop {
            match take_item(&mut frame) {
                Ok(Some((NODE_RECORDS, bytes))) => {
                    count_changed |= self.on_node_message(now, from.node, &bytes);
                }
                // Where membership is not configured, others may have begun with it.
                Ok(Some((MEMBERSHIP, bytes))) => {
                    if let Some(members) = &mut self.members {
                        members.receive(now, from.node, &bytes);
                    }
                }
                Ok(Some((keyspace, bytes))) => self.on_message(now, from, keyspace, bytes),
                Ok(None) => break,
                Err(why) => {
                    tracing::warn!(%from, why, "a malformed frame; the rest of it is dropped");
                    break;
                }
            }
        }
        // Not before: the frame's ping may show that its sender is connected, without which keyspaces would refuse for want
        // of a majority.
        if count_changed {
            self.recount(now);
        }
    }

    fn on_message(&mut self, now: Now, from: &ProcessId, keyspace: KeyspaceId, bytes: Bytes) {
        let Some(index) = self.find(keyspace) else {
            tracing::warn!(%from, %keyspace, "a message for a keyspace that is not configured here");
            return;
        };
        if self.replicas[index].counts_majorities() && !self.peers.is_counted(from) {
            return;
        }
        if !self.admission.drops_message() {
            let from = from.node;
            self.step(index, now, GroupInput::Receive { from, bytes });
        }
    }

    /// Whether some node is counted from now on that was not before.
    fn on_node_message(&mut self, now: Now, from: NodeId, bytes: &[u8]) -> bool {
        self.received += 1;
        match codec::decode(bytes) {
            Ok(NodeMessage::Ping(ping)) => {
                if let Some(view) = self.liveness.receive(now.instant, from, ping) {
                    self.on_view(now, view);
                }
            }
            Ok(NodeMessage::Meet) => self.peers.asked(from),
            Ok(NodeMessage::Keeps(disk)) => {
                let founded = self.peers.keeps(from, disk);
                if founded {
                    tracing::info!("all members have met");
                    self.records.push(NodeRecord::Founded);
                }
                self.explain_silence();
                return founded;
            }
            Err(error) => tracing::warn!(%from, %error, "a malformed message between nodes is dropped"),
        }
        false
    }

    pub(super) fn on_view(&mut self, now: Now, view: PeerView) {
        self.next_status = now.instant;
        self.view = view;
        for index in 0..self.replicas.len() {
            let view = self.view_of(index);
            self.step(index, now, GroupInput::Peers(view));
        }
    }

    /// Some node is counted from now on, or no more. News only where a view was given: before the first, nobody is known to
    /// be silent, and a keyspace may hope for all.
    fn recount(&mut self, now: Now) {
        if !self.liveness.has_reported() {
            return;
        }
        self.next_status = now.instant;
        for index in 0..self.replicas.len() {
            if self.replicas[index].counts_majorities() {
                let view = self.view_of(index);
                self.step(index, now, GroupInput::Peers(view));
            }
        }
    }

    fn view_of(&self, index: usize) -> PeerView {
        if self.replicas[index].counts_majorities() {
            self.peers.counted_view(&self.view)
        } else {
            self.view.clone()
        }
    }

    /// Has keyspaces that cannot take part say why.
    pub(super) fn explain_silence(&mut self) {
        let why = self.peers.why_silent();
        for replica in &mut self.replicas {
            if replica.counts_majorities() {
                replica.set_silent(why.clone());
            }
        }
    }

    /// The operator accepts another disk of a peer that has lost its own: [`crate::peers`].
    pub fn accept_disk(&mut self, peer: NodeId, disk: DiskId) {
        let kept = self.peers.accept(peer, disk);
        self.records.extend(kept.map(NodeRecord::Met));
    }

    /// What the log reports. `Err` is the end of the node: nobody can say what the disk holds.
    pub fn on_log(&mut self, now: Now, event: LogEvent) -> Result<(), LogError> {
        match event {
            LogEvent::Failed(error) => return Err(error),
            LogEvent::Space { full } => {
                for replica in &mut self.replicas {
                    replica.set_no_space(full.clone());
                }
                self.admission.set_no_space(full);
                self.next_status = now.instant;
            }
            LogEvent::Progress(progress) => {
                assert!(
                    progress.durable <= progress.written && progress.written <= self.last,
                    "the log reports {progress:?} of {} records",
                    self.last
                );
                self.progress = progress;
                while let Some((_, cost)) = self.given.pop_front_if(|(at, _)| *at <= progress.durable) {
                    self.given_bytes -= cost;
                }
                for index in 0..self.replicas.len() {
                    let Some((up_to, freed)) = self.replicas[index].persisted(progress) else {
                        continue;
                    };
                    self.admission.persisted(freed);
                    self.step(index, now, GroupInput::Persisted { up_to });
                }
            }
        }
        Ok(())
    }

    /// Opens a watch at the end of this turn, when all changes of the turn are known.
    pub fn on_watch(&mut self, id: WatchId, keyspace: KeyspaceId, spec: WatchSpec, destination: Destination) {
        let Some(index) = self.find(keyspace) else {
            let reason = self.no_such(keyspace);
            self.items.push((id, Err(reason.into())));
            return;
        };
        if let Err(reason) = spec.range.validate() {
            self.items.push((id, Err(reason.into())));
            return;
        }
        let opening = self.opening.iter().filter(|other| other.index == index).count();
        let limit = self.admission.limits().watchers_max;
        if self.replicas[index].watchers.len() + opening >= limit {
            let what = format!("{limit} watches of this keyspace are open at this node already");
            self.items.push((id, Err(Reason::Overloaded { what }.into())));
            return;
        }
        self.opening.push(Opening {
            id,
            index,
            spec,
            destination,
        });
    }

    /// The reader of a watch has more room, or has gone.
    pub fn on_reader(&mut self, id: WatchId, event: ReaderEvent) {
        match event {
            ReaderEvent::Gone => self.opening.retain(|opening| opening.id != id),
            ReaderEvent::Room(bytes) => {
                for opening in self.opening.iter_mut().filter(|opening| opening.id == id) {
                    opening.destination.room = opening.destination.room.saturating_add(bytes);
                }
            }
        }
        let Some(index) = self.watches.get(&id).copied() else {
            return;
        };
        self.replicas[index].watchers.on_reader(id, event);
        if event == ReaderEvent::Gone {
            self.watches.remove(&id);
        }
    }

    /// What the items of some watches leave by has no room any more, or has room again. One of which nothing was said has
    /// room; of one that has ended it is to be said.
    pub fn on_link(&mut self, link: LinkId, has_room: bool) {
        for replica in &mut self.replicas {
            replica.watchers.on_link(link, has_room);
        }
    }

    /// The snapshot job that the node gave out has ended.
    pub fn on_snapshot(&mut self, result: Result<Summary, SnapshotError>) {
        self.release = self.release.max(self.snapshots.on_written(result));
    }

    /// Has a snapshot made as soon as possible, however short the log is.
    pub fn request_snapshot(&mut self) {
        self.snapshots.request();
    }

    /// Steps one keyspace.
    pub(super) fn step(&mut self, index: usize, now: Now, input: GroupInput) {
        self.replicas[index].step(now, input);
        if self.touched.last() != Some(&index) {
            self.touched.push(index);
        }
    }
}
