//! The same load on a three-node ZooKeeper, if it is installed as Debian does (`zookeeper` and a Java).
//!
//! Its protocol is a few big-endian fields behind a length, written by hand here. Answers of one connection come in the
//! order of the requests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use crate::cluster::cpu_of;
use crate::etcd::free_ports;
use crate::load::{self, Load};
use crate::{BenchError, Result};

/// Where Debian puts it, with what it needs named inside.
const JAR: &str = "/usr/share/java/zookeeper.jar";
const SERVER: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
const VERSION: &str = "org.apache.zookeeper.version.VersionInfoMain";

/// Operations by their numbers on the wire.
const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
/// What an answer says of a node that is not there.
const NO_NODE: i32 = -101;
/// And of one that is.
const NODE_EXISTS: i32 = -110;
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A running ensemble. Its processes end with it.
#[derive(Debug)]
pub struct ZooKeeper {
    nodes: Vec<Child>,
    ports: Vec<u16>,
}

/// Whether ZooKeeper can be run, and its version.
pub async fn version() -> Option<String> {
    let output = Command::new("java")
        .args(["-cp", JAR, VERSION])
        .output()
        .await
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("version"))?;
    let number = line
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let number = number.split(['-', ',']).next().unwrap_or(number);
    Some(format!("zookeeper {number}"))
}

impl ZooKeeper {
    /// Starts three members in `directory`, with default settings but for addresses and directories.
    pub async fn start(directory: &Path) -> Result<Self> {
        let ports = free_ports(9)?;
        let mut nodes = Vec::new();
        for index in 0..3 {
            let home = directory.join(format!("zookeeper-{index}"));
            let failed = |error: std::io::Error| BenchError::system(home.display().to_string(), error);
            std::fs::create_dir_all(&home).map_err(failed)?;
            std::fs::write(home.join("myid"), format!("{}\n", index + 1)).map_err(failed)?;
            let mut text = format!(
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
                 maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n",
                home.display(),
                ports[index],
            );
            for other in 0..3 {
                let (peer, election) = (ports[3 + other], ports[6 + other]);
                text += &format!("server.{}=127.0.0.1:{peer}:{election}\n", other + 1);
            }
            let file = home.join("zoo.cfg");
            std::fs::write(&file, text).map_err(failed)?;
            let log =
                std::fs::File::create(directory.join(format!("zookeeper-{index}.log"))).map_err(failed)?;
            let child = Command::new("java")
                .args(["-cp", JAR, SERVER])
                .arg(&file)
                .stdout(std::process::Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| BenchError::system("java", error))?;
            nodes.push(child);
        }
        let zookeeper = Self {
            nodes,
            ports: ports[..3].to_vec(),
        };
        let start = Instant::now();
        loop {
            let found = async { zookeeper.leader().await?.create("/ready", b"yes").await }.await;
            match found {
                Ok(()) => return Ok(zookeeper),
                Err(error) if start.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    /// A session at the member that leads.
    async fn leader(&self) -> Result<Session> {
        for port in &self.ports {
            if mode(*port).await?.contains("leader") {
                return Session::open(*port).await;
            }
        }
        Err(BenchError::system("zookeeper", "no member leads yet"))
    }

    /// Sets values of this size at the leader for `time`.
    pub async fn puts(&self, clients: usize, bytes: usize, time: Duration) -> Result<Load> {
        let value: Rc<[u8]> = vec![b'v'; bytes].into();
        self.closed(clients, time, move |session, path| {
            let value = Rc::clone(&value);
            async move {
                match session.set(&path, &value).await? {
                    NO_NODE => session.create(&path, &value).await,
                    code => answered(code),
                }
            }
        })
        .await
    }

    /// Reads values at the leader for `time`, from its memory: ZooKeeper has no linearizable read. [`ZooKeeper::puts`] has
    /// written them.
    pub async fn gets(&self, clients: usize, time: Duration) -> Result<Load> {
        self.closed(clients, time, |session, path| async move {
            answered(session.get(&path).await?)
        })
        .await
    }

    async fn closed<O, F>(&self, clients: usize, time: Duration, operation: O) -> Result<Load>
    where
        O: Fn(Session, String) -> F + 'static,
        F: Future<Output = Result<()>>,
    {
        /// As many as share a connection to etcd.
        const CLIENTS_PER_CONNECTION: usize = 32;
        let mut sessions = Vec::new();
        for _ in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
            sessions.push(self.leader().await?);
        }
        let processes: Vec<u32> = self.nodes.iter().filter_map(Child::id).collect();
        load::closed(
            clients,
            time,
            move || cpu_of(&processes),
            move |client, sequence| {
                let session = sessions[client % sessions.len()].clone();
                let done = operation(session, format!("/client-{client}-{}", sequence % 100));
                async move { done.await.map_err(|error| error.to_string()) }
            },
        )
        .await
    }
}

fn answered(code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(BenchError::system("zookeeper", format!("error {code}"))),
    }
}

/// What a member says of itself.
async fn mode(port: u16) -> Result<String> {
    let failed = |error: std::io::Error| BenchError::system(format!("zookeeper at port {port}"), error);
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(failed)?;
    tcp.write_all(b"srvr").await.map_err(failed)?;
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.map_err(failed)?;
    let mode = text.lines().find(|line| line.starts_with("Mode:"));
    Ok(mode.unwrap_or_default().to_owned())
}

type Waiting = Rc<RefCell<VecDeque<oneshot::Sender<i32>>>>;

/// A connection with requests under way, one after the other.
#[derive(Clone, Debug)]
struct Session {
    requests: mpsc::UnboundedSender<BytesMut>,
    waiting: Waiting,
}

impl Session {
    async fn open(port: u16) -> Result<Self> {
        let failed = |error: std::io::Error| BenchError::system(format!("zookeeper at port {port}"), error);
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let mut hello = BytesMut::new();
        // Protocol version, last transaction seen, time-out in ms, session, password, read-only.
        hello.put_i32(0);
        hello.put_i64(0);
        hello.put_i32(30_000);
        hello.put_i64(0);
        put_bytes(&mut hello, &[0; 16]);
        hello.put_u8(0);
        tcp.write_all(&framed(&hello)).await.map_err(failed)?;
        read_frame(&mut tcp).await.map_err(failed)?;
        let (mut reader, mut writer) = tcp.into_split();
        let (requests, mut queue) = mpsc::unbounded_channel::<BytesMut>();
        let waiting = Waiting::default();
        tokio::task::spawn_local(async move {
            while let Some(mut bytes) = queue.recv().await {
                while let Ok(more) = queue.try_recv() {
                    bytes.unsplit(more);
                }
                if let Err(error) = writer.write_all(&bytes).await {
                    eprintln!("zookeeper connection: {error}");
                    return;
                }
            }
        });
        let answers = Rc::clone(&waiting);
        tokio::task::spawn_local(async move {
            // Until the connection ends, as it does with its session.
            while let Ok(mut answer) = read_frame(&mut reader).await {
                // Request number, transaction, error.
                if answer.remaining() < 16 {
                    break;
                }
                let (_number, _transaction, code) = (answer.get_i32(), answer.get_i64(), answer.get_i32());
                if let Some(caller) = answers.borrow_mut().pop_front() {
                    // The caller may have been dropped at the end of a run.
                    let _gone = caller.send(code).is_err();
                }
            }
            answers.borrow_mut().clear();
        });
        Ok(Self { requests, waiting })
    }

    async fn call(&self, operation: i32, body: impl FnOnce(&mut BytesMut)) -> Result<i32> {
        let mut request = BytesMut::new();
        // Requests are numbered for their senders alone, which match answers by their order here.
        request.put_i32(1);
        request.put_i32(operation);
        body(&mut request);
        let ended = || BenchError::system("zookeeper", "the connection has ended");
        let (caller, answer) = oneshot::channel();
        self.waiting.borrow_mut().push_back(caller);
        self.requests.send(framed(&request)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    async fn set(&self, path: &str, value: &[u8]) -> Result<i32> {
        self.call(SET_DATA, |request| {
            put_bytes(request, path.as_bytes());
            put_bytes(request, value);
            // Whatever its version.
            request.put_i32(-1);
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<i32> {
        self.call(GET_DATA, |request| {
            put_bytes(request, path.as_bytes());
            request.put_u8(0);
        })
        .await
    }

    async fn create(&self, path: &str, value: &[u8]) -> Result<()> {
        /// All rights.
        const ALL: i32 = 31;
        let code = self
            .call(CREATE, |request| {
                put_bytes(request, path.as_bytes());
                put_bytes(request, value);
                request.put_i32(1);
                request.put_i32(ALL);
                put_bytes(request, b"world");
                put_bytes(request, b"anyone");
                request.put_i32(0);
            })
            .await?;
        if code == NODE_EXISTS {
            Ok(())
        } else {
            answered(code)
        }
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn framed(body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(4 + body.len());
    put_bytes(&mut frame, body);
    frame
}

async fn read_frame(tcp: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<BytesMut> {
    let length = tcp.read_i32().await?;
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= ANSWER_BYTES_MAX);
    let length = length.ok_or_else(|| std::io::Error::other("a frame without a sensible length"))?;
    let mut body = BytesMut::zeroed(length);
    tcp.read_exact(&mut body).await?;
    Ok(body)
}
