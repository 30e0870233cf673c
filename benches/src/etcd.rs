//! The same load on a three-node etcd, if its binary is installed: puts and gets over gRPC on a few HTTP/2 connections.
//!
//! The few bytes of protobuf that they need are written by hand, so that no generated client has to be built.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cluster::cpu_of;
use crate::load::{self, Load};
use crate::{BenchError, Result};

/// A running etcd cluster. Its processes end with it.
#[derive(Debug)]
pub struct Etcd {
    nodes: Vec<Child>,
    ports: Vec<u16>,
}

/// Whether an `etcd` binary can be run, and its version.
pub async fn version() -> Option<String> {
    let output = Command::new("etcd").arg("--version").output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.lines().next()?.split_whitespace().last()?;
    Some(format!("etcd {number}"))
}

impl Etcd {
    /// Starts three members in `directory`, with default settings but for addresses and directories.
    pub async fn start(directory: &Path) -> Result<Self> {
        let ports: Vec<u16> = free_ports(6)?;
        let member = |index: usize| format!("m{index}=http://127.0.0.1:{}", ports[3 + index]);
        let members = (0..3).map(member).collect::<Vec<_>>().join(",");
        let mut nodes = Vec::new();
        for index in 0..3 {
            let client = format!("http://127.0.0.1:{}", ports[index]);
            let peer = format!("http://127.0.0.1:{}", ports[3 + index]);
            let log = std::fs::File::create(directory.join(format!("etcd-{index}.log")))
                .map_err(|error| BenchError::system("log file", error))?;
            let child = Command::new("etcd")
                .args(["--name", &format!("m{index}"), "--data-dir"])
                .arg(directory.join(format!("etcd-{index}")))
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args(["--initial-cluster", &members, "--initial-cluster-state", "new"])
                .stdout(std::process::Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| BenchError::system("etcd", error))?;
            nodes.push(child);
        }
        let etcd = Self {
            nodes,
            ports: ports[..3].to_vec(),
        };
        let start = Instant::now();
        while let Err(error) = etcd.leader().await {
            if start.elapsed() > Duration::from_secs(20) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(etcd)
    }

    /// A connection to the member that leads: the one that says so of itself.
    async fn leader(&self) -> Result<SendRequest<Bytes>> {
        for port in &self.ports {
            let mut connection = connect(*port).await?;
            let status = call(
                &mut connection,
                *port,
                "/etcdserverpb.Maintenance/Status",
                Bytes::new(),
            )
            .await?;
            if let Some((member, leader)) = member_and_leader(&status)
                && member == leader
                && leader != 0
            {
                // The first put also proves that the leader works.
                call(&mut connection, *port, PUT, put(b"ready", b"yes")).await?;
                return Ok(connection);
            }
        }
        Err(BenchError::system("etcd", "no member leads yet"))
    }

    /// Puts values of this size at the leader for `time`.
    pub async fn puts(&self, clients: usize, bytes: usize, time: Duration) -> Result<Load> {
        let value = vec![b'v'; bytes];
        let body = move |client: usize, sequence: u64| {
            put(format!("client/{client}/{}", sequence % 100).as_bytes(), &value)
        };
        self.closed(clients, time, PUT, body).await
    }

    /// Reads keys at the leader for `time`, linearizably. [`Etcd::puts`] has written them.
    pub async fn gets(&self, clients: usize, time: Duration) -> Result<Load> {
        let body =
            move |client: usize, sequence: u64| get(format!("client/{client}/{}", sequence % 100).as_bytes());
        self.closed(clients, time, RANGE, body).await
    }

    async fn closed(
        &self,
        clients: usize,
        time: Duration,
        method: &'static str,
        body: impl Fn(usize, u64) -> Bytes + 'static,
    ) -> Result<Load> {
        /// More streams of small frames on one connection look like an attack to the HTTP/2 library.
        const CLIENTS_PER_CONNECTION: usize = 32;
        let mut connections = Vec::new();
        for _ in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
            connections.push(self.leader().await?);
        }
        let port = self.ports[0];
        let processes: Vec<u32> = self.nodes.iter().filter_map(Child::id).collect();
        load::closed(
            clients,
            time,
            move || cpu_of(&processes),
            move |client, sequence| {
                let mut connection = connections[client % connections.len()].clone();
                let body = body(client, sequence);
                async move {
                    call(&mut connection, port, method, body)
                        .await
                        .map(drop)
                        .map_err(|error| error.to_string())
                }
            },
        )
        .await
    }
}

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

/// Field 1: key, field 2: value.
fn put(key: &[u8], value: &[u8]) -> Bytes {
    fields(&[(0x0a, key), (0x12, value)])
}

/// Field 1: key.
fn get(key: &[u8]) -> Bytes {
    fields(&[(0x0a, key)])
}

fn fields(fields: &[(u8, &[u8])]) -> Bytes {
    let mut message = BytesMut::new();
    for (tag, bytes) in fields {
        message.put_u8(*tag);
        put_varint(&mut message, bytes.len() as u64);
        message.put_slice(bytes);
    }
    message.freeze()
}

fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// StatusResponse: field 1 is the header, whose field 2 is the member's id; field 4 is the leader's id.
fn member_and_leader(mut message: &[u8]) -> Option<(u64, u64)> {
    let (mut member, mut leader) = (0, 0);
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let number = varint(&mut message)?;
        if tag & 7 == 2 {
            let (inner, rest) = message.split_at_checked(usize::try_from(number).ok()?)?;
            message = rest;
            if tag >> 3 == 1 {
                let mut header = inner;
                while !header.is_empty() {
                    let (tag, number) = (varint(&mut header)?, varint(&mut header)?);
                    if tag >> 3 == 2 {
                        member = number;
                    }
                }
            }
        } else if tag >> 3 == 4 {
            leader = number;
        }
    }
    Some((member, leader))
}

async fn connect(port: u16) -> Result<SendRequest<Bytes>> {
    let failed = |error: &dyn std::fmt::Display| BenchError::system(format!("etcd at port {port}"), error);
    let tcp = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| failed(&error))?;
    tcp.set_nodelay(true).map_err(|error| failed(&error))?;
    let (client, connection) = h2::client::handshake(tcp).await.map_err(|error| failed(&error))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            eprintln!("etcd connection: {error}");
        }
    });
    Ok(client)
}

/// One gRPC call: a five-byte prefix (not compressed, length), the message, status in the trailers.
async fn call(client: &mut SendRequest<Bytes>, port: u16, method: &str, message: Bytes) -> Result<Bytes> {
    let failed = |error: &dyn std::fmt::Display| BenchError::system(format!("etcd {method}"), error);
    let mut ready = client.clone().ready().await.map_err(|error| failed(&error))?;
    let request = http::Request::post(format!("http://127.0.0.1:{port}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| failed(&error))?;
    let (response, mut body) = ready
        .send_request(request, false)
        .map_err(|error| failed(&error))?;
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    body.send_data(framed.freeze(), true)
        .map_err(|error| failed(&error))?;
    let mut answer = response.await.map_err(|error| failed(&error))?.into_body();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = answer.data().await {
        let chunk = chunk.map_err(|error| failed(&error))?;
        answer
            .flow_control()
            .release_capacity(chunk.len())
            .map_err(|error| failed(&error))?;
        bytes.put_slice(&chunk);
    }
    let trailers = answer.trailers().await.map_err(|error| failed(&error))?;
    let status = trailers
        .as_ref()
        .and_then(|t| t.get("grpc-status"))
        .map_or(&b"missing"[..], |s| s.as_bytes());
    if status != b"0" || bytes.len() < 5 {
        return Err(failed(&format!(
            "grpc-status {}",
            String::from_utf8_lossy(status)
        )));
    }
    Ok(bytes.freeze().slice(5..))
}

pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let sockets: std::io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let sockets = sockets.map_err(|error| BenchError::system("ports", error))?;
    sockets
        .iter()
        .map(|socket| {
            Ok(socket
                .local_addr()
                .map_err(|error| BenchError::system("ports", error))?
                .port())
        })
        .collect()
}
