//! Calls of the workload through clients, their answers, and those that nobody waits for any more.

use std::time::Duration;

use trilemma_client::{Answer, Call, What};
use trilemma_core::{Attempt, Instant, Reply, Request, Ticket};

use super::{Caller, LibraryEvent, Waiting};
use crate::world::{Event, MS, World};

impl World<'_> {
    /// A client's turn: it begins its next operation, or asks again about the one under way.
    pub(in crate::world) fn client_through_library(&mut self, client: usize) {
        let Some(scenario) = &self.scenario.library else {
            return;
        };
        let workload = &self.scenario.workload;
        let time = self.now;
        let library = client % self.libraries.all.len();
        if self.clients[client].pending.is_none() {
            if self.asked >= u64::from(workload.operations) {
                return;
            }
            self.asked += 1;
            let this = &mut self.clients[client];
            let slot = this.rng.below(self.parts.len() as u64) as usize;
            this.choose(slot, self.parts[slot], workload.keys, time);
            self.name_operation(client);
        }
        let shortest = workload.deadline / 8;
        let this = &mut self.clients[client];
        let timeout = shortest + this.rng.below(workload.deadline - shortest + 1);
        let leaves = !self.healed && this.rng.per_mille(scenario.drop);
        let leaves = leaves.then(|| this.rng.below(timeout));
        let Some(request) = this.request() else { return };
        let ticket = self.call(client, request, timeout);
        if let (Some(delay), Some(ticket)) = (leaves, ticket) {
            self.library_later(library, delay, LibraryEvent::Drop { ticket });
        }
    }

    /// Gives the operation that a client has begun an id of a session of its library.
    pub(in crate::world) fn name_operation(&mut self, client: usize) {
        let library = client % self.libraries.all.len();
        if let Some(scenario) = &self.scenario.library
            && let Some(pending) = &mut self.clients[client].pending
            && pending.command.is_some()
        {
            pending.op = self.libraries.all[library].op(pending.slot, scenario);
        }
    }

    /// Puts what a client has begun to its library.
    pub(in crate::world) fn ask_through_library(&mut self, client: usize, timeout: u64) {
        if let Some(request) = self.clients[client].request() {
            self.call(client, request, timeout);
        }
    }

    /// Puts a client's request to its library.
    pub(super) fn call(&mut self, client: usize, request: Request, timeout: u64) -> Option<Ticket> {
        let library = client % self.libraries.all.len();
        let now = self.now;
        let pending = self.clients[client].pending.as_mut()?;
        pending.sent = true;
        let slot = pending.slot;
        if matches!(request, Request::Write { .. }) {
            self.load.asked(slot);
        }
        let what = What::Request {
            keyspace: crate::node::name(slot, self.parts[slot]).into(),
            backend: crate::node::backend(self.parts[slot]),
            request,
        };
        let call = Call {
            what,
            server: None,
            timeout: Duration::from_nanos(timeout),
        };
        let this = &mut self.libraries.all[library];
        let ticket = this.client.on_call(Instant::from_nanos(now), call);
        let waiting = Waiting {
            caller: Caller::Client(client),
            deadline: now + timeout,
        };
        this.waiting.insert(ticket, waiting);
        self.library_effects(library);
        Some(ticket)
    }

    /// A call is answered.
    pub(super) fn resolved(&mut self, library: usize, ticket: Ticket, answer: Answer) {
        let Some(Waiting { caller, deadline }) = self.libraries.all[library].waiting.remove(&ticket) else {
            return self.fail(
                "library",
                format!("call {ticket} is answered twice, or was dropped"),
            );
        };
        let now = self.now;
        if now > deadline + 1 {
            let what = format!(
                "call {ticket} of {caller:?} is answered {} ns after its deadline",
                now - deadline
            );
            return self.fail("library", what);
        }
        match (caller, answer) {
            (Caller::Client(client), Answer::Reply(reply)) => {
                self.client_resolved(library, client, reply, deadline - now.min(deadline));
            }
            (Caller::Watcher(_), Answer::Watching(_)) => {}
            (Caller::Watcher(watcher), Answer::Refused(_)) => {
                let delay = MS + self.libraries.all[library].rng.below(30 * MS);
                self.schedule(delay, Event::Watch { watcher });
            }
            (caller, answer) => {
                self.fail("library", format!("{caller:?} is answered with {answer:?}"));
            }
        }
    }

    /// What the facade does with the end of an attempt: a command whose session was forgotten goes again in a new one.
    pub(super) fn client_resolved(&mut self, library: usize, client: usize, reply: Reply, rest: u64) {
        let Some(pending) = &self.clients[client].pending else {
            return self.fail("library", format!("client {client} waits for nothing"));
        };
        let (slot, op, command) = (pending.slot, pending.op, pending.command.clone());
        let this = &mut self.libraries.all[library];
        if let (Reply::Write(Err(error)), Some(command)) = (&reply, command)
            && let Some(again) = this.again(slot, op, error)
        {
            self.coverage.event("evicted", "first");
            if let Some(pending) = &mut self.clients[client].pending {
                pending.op = again;
            }
            let request = Request::Write {
                op: again,
                attempt: Attempt::First,
                command,
            };
            this.done(slot, op);
            self.call(client, request, rest);
            return;
        }
        this.done(slot, op);
        self.tell(client, Some(reply));
    }

    /// A caller leaves. Of what it had asked it knows nothing.
    pub(super) fn drop_call(&mut self, library: usize, ticket: Ticket) {
        let this = &mut self.libraries.all[library];
        let Some(waiting) = this.waiting.remove(&ticket) else {
            return;
        };
        this.client.on_dropped(Instant::from_nanos(self.now), ticket);
        let Caller::Client(client) = waiting.caller else {
            return;
        };
        self.coverage.event("operation", "dropped");
        let now = self.now;
        self.trace.line(now, || format!("client {client} drops {ticket}"));
        if let Some(pending) = &self.clients[client].pending {
            let (slot, op) = (pending.slot, pending.op);
            this.done(slot, op);
        }
        self.tell(client, None);
    }
}
