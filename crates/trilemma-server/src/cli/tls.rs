//! `cert`: development certificates. A node's identity is its certificate, bound to cluster and node id.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use trilemma::NodeId;
use trilemma::SigningKey;
use trilemma::pki::{Authority, Issued};

use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Makes certificates: an authority, and with it certificates of nodes and clients.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma cert new-ca --cluster demo --dir certs
  trilemma cert node 4 --cluster demo --dir certs
  trilemma cert client backup --cluster demo --dir certs
  trilemma cert signing-key 4 --dir certs

Files that exist are never overwritten unless --force is given. Keep ca.key offline: who has it can become any node.")]
pub(crate) struct Cert {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make the cluster's authority: ca.pem and ca.key
    NewCa(Place),
    /// Make a node's certificate: node-ID.pem and node-ID.key
    Node {
        /// The node's id
        node: u32,
        #[command(flatten)]
        place: Place,
    },
    /// Make a node's key for signatures of `gossip` changes: node-ID-signing.key; prints its public key
    SigningKey {
        /// The node's id
        node: u32,
        /// Where the file is
        #[arg(long, default_value = "certs")]
        dir: PathBuf,
        /// Overwrite a file that exists
        #[arg(long)]
        force: bool,
    },
    /// Make a client's certificate: NAME.pem and NAME.key
    Client {
        /// The client's name, which nodes log
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The cluster's name; certificates are good for one cluster
    #[arg(long)]
    cluster: String,
    /// Where the files are
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

impl Cert {
    pub(crate) fn run(self) -> Outcome {
        if let What::NewCa(place) | What::Node { place, .. } | What::Client { place, .. } = &self.what {
            check_cluster(&place.cluster)?;
        }
        match self.what {
            What::NewCa(place) => {
                create_dir(&place.dir)?;
                new_authority(&place.cluster, &place.dir, place.force)?;
                output::line(format!("wrote {0}/ca.pem and {0}/ca.key", place.dir.display()));
            }
            What::Node { node, place } => {
                let issued = authority(&place.dir)?
                    .issue_node(&place.cluster, NodeId(node))
                    .map_err(refused)?;
                write_issued(&place.dir, &format!("node-{node}"), &issued, place.force)?;
                output::line(format!(
                    "wrote {0}/node-{node}.pem and {0}/node-{node}.key",
                    place.dir.display()
                ));
            }
            What::SigningKey { node, dir, force } => {
                let key = SigningKey::generate().map_err(refused)?;
                let public = SigningKey::from_pem(key.as_bytes()).map_err(refused)?.public();
                create_dir(&dir)?;
                let path = dir.join(format!("node-{node}-signing.key"));
                write_file(&path, &key, Secrecy::Secret, force)?;
                output::line(format!("wrote {}; for [signing.public_keys]:", path.display()));
                output::line(format!("{node} = \"{public}\""));
            }
            What::Client { name, place } => {
                check_file_name(&name)?;
                let issued = authority(&place.dir)?
                    .issue_client(&place.cluster, &name)
                    .map_err(refused)?;
                write_issued(&place.dir, &name, &issued, place.force)?;
                output::line(format!(
                    "wrote {0}/{name}.pem and {0}/{name}.key",
                    place.dir.display()
                ));
            }
        }
        Ok(Exit::Ok)
    }
}

/// Refuses a name under which nobody could connect.
pub(super) fn check_cluster(name: &str) -> Result<(), Failure> {
    trilemma::config::check_cluster(name)
        .map_err(|why| Failure::usage(why, "nothing was written; give another --cluster"))
}

fn check_file_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(plain) && !name.starts_with('.') && name != "ca" {
        return Ok(());
    }
    Err(Failure::usage(
        format!("the client name \"{name}\" cannot be a file name here"),
        "use letters, digits, \"-\", \"_\" and \".\"; \"ca\" is taken",
    ))
}

pub(super) fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Start,
        error.to_string(),
        "check the authority's files and the names given",
    )
}

/// Makes a directory, and those above it, for their owner alone.
pub(super) fn create_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| {
        Failure::usage(
            format!("{}: {error}", dir.display()),
            "name a directory that can be made",
        )
    })
}

/// Makes an authority and writes its files.
pub(super) fn new_authority(cluster: &str, dir: &Path, force: bool) -> Result<Authority, Failure> {
    let authority = Authority::generate(cluster).map_err(refused)?;
    write_file(&dir.join("ca.key"), &authority.key_pem(), Secrecy::Secret, force)?;
    write_file(
        &dir.join("ca.pem"),
        authority.certificate_pem(),
        Secrecy::Public,
        force,
    )?;
    Ok(authority)
}

/// The authority whose files are in `dir`.
fn authority(dir: &Path) -> Result<Authority, Failure> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(
                format!("{}: {error}", path.display()),
                "make an authority with `trilemma cert new-ca`, or name its directory with --dir",
            )
        })
    };
    Authority::from_pem(&read("ca.pem")?, &read("ca.key")?).map_err(refused)
}

/// Writes a certificate and its key.
pub(super) fn write_issued(dir: &Path, name: &str, issued: &Issued, force: bool) -> Result<(), Failure> {
    write_file(
        &dir.join(format!("{name}.key")),
        &issued.key_pem,
        Secrecy::Secret,
        force,
    )?;
    write_file(
        &dir.join(format!("{name}.pem")),
        &issued.certificate_pem,
        Secrecy::Public,
        force,
    )
}

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// The owner alone (mode 0600 from the first byte on).
    Secret,
    /// Those whom the system lets.
    Public,
}

/// Writes a file that must not exist, unless `force`.
pub(super) fn write_file(path: &Path, text: &str, secrecy: Secrecy, force: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::usage(
            format!("{}: exists already", path.display()),
            "nothing was overwritten; choose another directory, or give --force to replace the file",
        ),
        _ => Failure::usage(
            format!("{}: {error}", path.display()),
            "name a directory that can be written",
        ),
    };
    if force {
        // Removed rather than truncated, so that the new file has its own mode.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secrecy == Secrecy::Secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}
