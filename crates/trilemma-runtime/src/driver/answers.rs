//! Where answers go.

use tokio::sync::oneshot;
use trilemma_client::wire::ClientReply;
use trilemma_core::{Entry, Reason, Reply, codec};
use trilemma_transport::{ClientRef, SendError};

/// Bytes of entries from which on an answer is encoded when it is sent.
const LARGE_ANSWER_BYTES: usize = 16 * 1024;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    /// A task of this process.
    Local(oneshot::Sender<Reply>),
    /// A client's request.
    Client(ClientRef, u64),
}

impl ReplyTo {
    /// Gives the answer. A caller that has gone away needs none. Returns whether it was refused instead.
    pub(super) fn answer(self, reply: Reply) -> bool {
        match self {
            ReplyTo::Local(sender) => {
                // The caller dropped its future: nobody is left to tell.
                let _gone = sender.send(reply);
                false
            }
            ReplyTo::Client(client, request) => answer_client(&client, request, reply),
        }
    }
}

/// Answers a client. A large answer, which only a read has, is encoded when its turn to be sent comes, and is refused if
/// there is no room for it. Returns whether it was refused.
fn answer_client(client: &ClientRef, request: u64, reply: Reply) -> bool {
    let bytes = match &reply {
        Reply::Read(Ok(found)) => found.entries.iter().map(Entry::bytes).sum(),
        Reply::Read(Err(_)) | Reply::Write(_) | Reply::Outcome(_) => 0,
    };
    if bytes < LARGE_ANSWER_BYTES {
        send(client, request, &ClientReply::Answer(reply));
        return false;
    }
    let queued = client.reply_later(request, bytes, move || codec::encode(&ClientReply::Answer(reply)));
    let is_refused = queued == Err(SendError::NoRoom);
    if is_refused {
        let what = "too many bytes of answers wait for this client; it reads too slowly".to_owned();
        let refused = Reply::Read(Err(Reason::Overloaded { what }.into()));
        send(client, request, &ClientReply::Answer(refused));
    } else if let Err(error) = queued {
        tracing::debug!(%error, "an answer found its client gone");
    }
    is_refused
}

pub(super) fn send(client: &ClientRef, request: u64, reply: &ClientReply) {
    if let Err(error) = client.reply(request, codec::encode(reply)) {
        tracing::debug!(%error, "an answer found its client gone");
    }
}
