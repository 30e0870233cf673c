//! Who a certificate names.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use trilemma_core::NodeId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::TransportError;
use crate::signing::SigningKeys;

/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// A certificate chain, its key, and the authority that others must come from.
#[derive(Debug)]
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authority: Vec<CertificateDer<'static>>,
    signing: Option<SigningKeys>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            authority: self.authority.clone(),
            signing: self.signing.clone(),
        }
    }
}

impl Identity {
    /// Reads PEM files. A key that everybody may read is refused, for then everybody may be this node; one that its group may
    /// read is used, with a warning.
    pub fn load(authority: &Path, certificate: &Path, key: &Path) -> Result<Self, TransportError> {
        let (authority_pem, certificate_pem, key_pem) = (read(authority)?, read(certificate)?, read(key)?);
        let within = |path: &Path| {
            let path = path.to_path_buf();
            move |why: String| TransportError::File { path, why }
        };
        Ok(Self {
            chain: certificates(&certificate_pem).map_err(within(certificate))?,
            key: private_key(&key_pem)
                .and_then(|parsed| check_mode(key).map(|()| parsed))
                .map_err(within(key))?,
            authority: certificates(&authority_pem).map_err(within(authority))?,
            signing: None,
        })
    }

    /// Reads PEM text: the authority, the certificate chain, the key.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TransportError> {
        let named =
            |what: &'static str| move |why: String| TransportError::Identity(format!("{what}: {why}"));
        Ok(Self {
            chain: certificates(certificate).map_err(named("certificate"))?,
            key: private_key(key).map_err(named("key"))?,
            authority: certificates(authority).map_err(named("authority"))?,
            signing: None,
        })
    }

    /// The same with keys to sign and verify what keyspaces with `signatures` hold.
    #[must_use]
    pub fn with_signing(self, keys: SigningKeys) -> Self {
        Self {
            signing: Some(keys),
            ..self
        }
    }

    /// The keys to sign and verify with, if any.
    #[must_use]
    pub fn signing(&self) -> Option<&SigningKeys> {
        self.signing.as_ref()
    }

    /// When the certificate is valid.
    pub fn validity(&self) -> Result<Validity, TransportError> {
        let first = self.chain.first().ok_or("there is no certificate".to_owned());
        let validity = first.and_then(|first| {
            let (_, certificate) = X509Certificate::from_der(first)
                .map_err(|error| format!("not an X.509 certificate: {error}"))?;
            let validity = certificate.validity();
            Ok(Validity {
                from: validity.not_before.timestamp(),
                until: validity.not_after.timestamp(),
            })
        });
        validity.map_err(TransportError::Identity)
    }

    /// Whom the certificate names.
    pub fn subject(&self) -> Result<Subject, TransportError> {
        Subject::of(&self.chain).map_err(TransportError::Identity)
    }
}

fn failed(path: &Path) -> impl Fn(String) -> TransportError {
    |why| TransportError::File {
        path: path.to_path_buf(),
        why,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TransportError> {
    let failed = failed(path);
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > PEM_BYTES_MAX {
        return Err(failed(format!("{} bytes are no PEM file", metadata.len())));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

/// Reads a file that others must not be able to read.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, TransportError> {
    let text = read(path)?;
    check_mode(path).map_err(failed(path))?;
    Ok(text)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("no PEM certificate: {error}"))?;
    if found.is_empty() {
        Err("no PEM certificate in it".into())
    } else {
        Ok(found)
    }
}

pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("no PEM private key: {error}"))
}

#[cfg(unix)]
fn check_mode(key: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(key).map_err(|error| error.to_string())?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o007 != 0 {
        return Err(format!(
            "everybody may use the private key (mode {mode:o}); chmod 600 it (for a mounted secret: defaultMode 0400 or 0440)"
        ));
    }
    if metadata.is_file() && mode & 0o070 != 0 {
        tracing::warn!(file = %key.display(), "the private key can be read by its group; chmod 600 it");
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_key: &Path) -> Result<(), String> {
    Ok(())
}

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: i64,
    /// Its last second.
    pub until: i64,
}

/// Whom a certificate names, by its URI `trilemma://<cluster>/node/<id>` or `trilemma://<cluster>/client/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A node.
    Node {
        /// The cluster's name.
        cluster: String,
        /// The node.
        node: NodeId,
    },
    /// A client.
    Client {
        /// The cluster's name.
        cluster: String,
        /// The client's name.
        name: String,
    },
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Node { cluster, node } => write!(f, "node {node} of cluster \"{cluster}\""),
            Subject::Client { cluster, name } => write!(f, "client \"{name}\" of cluster \"{cluster}\""),
        }
    }
}

impl Subject {
    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        match self {
            Subject::Node { cluster, .. } | Subject::Client { cluster, .. } => cluster,
        }
    }

    /// Reads the first certificate of a chain. TLS has verified it before.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let first = chain.first().ok_or("there is no certificate")?;
        let (_, certificate) =
            X509Certificate::from_der(first).map_err(|error| format!("not an X.509 certificate: {error}"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("its alternative names cannot be read: {error}"))?
            .ok_or("it has no alternative names")?;
        let mut subjects = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Self::parse(uri),
            _ => None,
        });
        match (subjects.next(), subjects.next()) {
            (Some(subject), None) => Ok(subject),
            (None, _) => Err("it has no URI trilemma://<cluster>/node/<id> or /client/<name>".into()),
            (Some(_), Some(_)) => Err("it names more than one subject".into()),
        }
    }

    fn parse(uri: &str) -> Option<Self> {
        let (cluster, rest) = uri.strip_prefix("trilemma://")?.split_once('/')?;
        let cluster = cluster.to_owned();
        match rest.split_once('/')? {
            ("node", id) => Some(Subject::Node {
                cluster,
                node: NodeId(id.parse().ok()?),
            }),
            ("client", name) if !name.is_empty() => Some(Subject::Client {
                cluster,
                name: name.to_owned(),
            }),
            _ => None,
        }
    }

    /// The URI that [`Subject::parse`] reads.
    pub(crate) fn uri(&self) -> String {
        match self {
            Subject::Node { cluster, node } => format!("trilemma://{cluster}/node/{node}"),
            Subject::Client { cluster, name } => format!("trilemma://{cluster}/client/{name}"),
        }
    }
}

/// The TLS server name of a node.
pub(crate) fn server_name(cluster: &str, node: NodeId) -> String {
    format!("node-{node}.{}.trilemma", cluster.replace('_', "-"))
}
