//! Certificates for development and for clusters without a certificate authority of their own.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use trilemma_core::NodeId;

use crate::error::TransportError;
use crate::identity::{Subject, server_name};

/// Years that certificates made here are valid.
const VALID: (i32, i32) = (2025, 2045);

/// An authority that issues the certificates of one cluster.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    key: KeyPair,
}

/// A certificate and its key, as PEM text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key. Write it with access for its owner alone.
    pub key_pem: String,
}

fn failed(what: &'static str) -> impl Fn(rcgen::Error) -> TransportError {
    move |error| TransportError::Identity(format!("{what}: {error}"))
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(VALID.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(VALID.1, 1, 1);
    params
}

impl Authority {
    /// Makes a new authority for this cluster.
    pub fn generate(cluster: &str) -> Result<Self, TransportError> {
        let key = KeyPair::generate().map_err(failed("new key"))?;
        let mut params = params(&format!("Trilemma authority of cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed("new authority"))?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key,
        })
    }

    /// The authority that was saved as this PEM text.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TransportError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("the authority's key"))?;
        let authority = Self {
            certificate_pem: certificate_pem.to_owned(),
            key,
        };
        authority.issuer()?;
        Ok(authority)
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, TransportError> {
        Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key)
            .map_err(failed("the authority's certificate"))
    }

    /// Its certificate: what every node and client must be given.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key: who has it can join the cluster.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate for a node.
    pub fn issue_node(&self, cluster: &str, node: NodeId) -> Result<Issued, TransportError> {
        let subject = Subject::Node {
            cluster: cluster.into(),
            node,
        };
        let purposes = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(&subject, Some(server_name(cluster, node)), purposes, VALID)
    }

    /// A certificate for a client.
    pub fn issue_client(&self, cluster: &str, name: &str) -> Result<Issued, TransportError> {
        let subject = Subject::Client {
            cluster: cluster.into(),
            name: name.into(),
        };
        self.issue(&subject, None, vec![ExtendedKeyUsagePurpose::ClientAuth], VALID)
    }

    pub(crate) fn issue(
        &self,
        subject: &Subject,
        dns_name: Option<String>,
        purposes: Vec<ExtendedKeyUsagePurpose>,
        valid: (i32, i32),
    ) -> Result<Issued, TransportError> {
        let key = KeyPair::generate().map_err(failed("new key"))?;
        let mut params = params(&subject.to_string());
        let uri = subject.uri().try_into().map_err(failed("name"))?;
        params.subject_alt_names.push(SanType::URI(uri));
        if let Some(name) = dns_name {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.try_into().map_err(failed("name"))?));
        }
        params.not_before = rcgen::date_time_ymd(valid.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(valid.1, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        let certificate = params
            .signed_by(&key, &self.issuer()?)
            .map_err(failed("new certificate"))?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}
