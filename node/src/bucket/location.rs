//! Where a bucket is, from the text that a user gives, and how its store is opened.
//!
//! ```text
//! ./path, /path, file:///path                         a folder, which may be shared by the nodes of one machine
//! s3://BUCKET/PREFIX?endpoint=URL&region=R&path_style=true    AWS S3 and what speaks its protocol
//! gs://BUCKET/PREFIX?endpoint=URL                     Google Cloud Storage
//! az://CONTAINER/PREFIX?account=A&endpoint=URL        Azure Blob Storage
//! memory:                                             gone with the process: for tests
//! ```
//!
//! Credentials never stand in the URL, since that is shown on status pages and in logs: they come from where the
//! clouds' own tools look, the `AWS_*`, `GOOGLE_*` and `AZURE_*` variables or the machine's identity. What stands in
//! the URL wins over a variable (`AWS_ENDPOINT_URL`, `AWS_REGION`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use reqwest::Url;

use super::error::{Error, Result};
use crate::error_text::causes;

/// Time for a connection to a cloud store.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one request, a part of a large file included; [`super::Bucket`] sets tighter ones for small objects.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Retries inside one attempt of [`super::Bucket`]: parts of a large upload can only be sent again there.
const CLIENT_RETRIES: usize = 2;
const CLIENT_RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const CLIENT_BACKOFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2. };

/// Variables that name another server than a cloud's own.
const ENDPOINTS: [&str; 4] =
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT"];

/// Makes the object store behind a location: the seam by which a simulator hands in its own.
pub trait ObjectStores: Send + Sync + 'static {
    /// The store whose keys are those of [`super::keys`]. Does no I/O, but may make a folder.
    ///
    /// # Errors
    /// [`Error::Invalid`] when what stands in the environment can't be used.
    fn open(&self, location: &Location) -> Result<Opened>;
}

/// A store that was opened.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The folder that it is, where it is one: compare-and-swap is ours there, and files can be shared by links.
    pub folder: Option<PathBuf>,
}

/// One store for every location: for tests and the simulator, where several nodes are handed the same.
pub struct Handed(pub Arc<dyn ObjectStore>);

impl ObjectStores for Handed {
    fn open(&self, _location: &Location) -> Result<Opened> {
        Ok(Opened { store: self.0.clone(), folder: None })
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
fn real_path(path: &std::path::Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder.
    Folder(PathBuf),
    /// S3 and its like.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What stands before all keys.
        prefix: Path,
        /// Another server than AWS's.
        endpoint: Option<String>,
        /// Where the bucket is.
        region: Option<String>,
        /// Whether the bucket's name is part of the path, and not of the host.
        path_style: Option<bool>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The bucket's name.
        bucket: String,
        /// What stands before all keys.
        prefix: Path,
        /// Another server than Google's.
        endpoint: Option<String>,
    },
    /// Azure Blob Storage.
    Azure {
        /// The container's name.
        container: String,
        /// What stands before all keys.
        prefix: Path,
        /// The storage account.
        account: Option<String>,
        /// Another server than Azure's.
        endpoint: Option<String>,
    },
    /// Memory.
    Memory,
}

impl Location {
    /// Reads what a user gave.
    ///
    /// # Errors
    /// [`Error::Invalid`] says what is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::Invalid(format!("bucket {text:?}: {why}"));
        if text.is_empty() {
            return Err(wrong("a bucket is a folder, s3://…, gs://… or az://…".to_owned()));
        }
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if !text.contains("://") {
            return Ok(Self::Folder(text.into()));
        }
        let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            let why = "credentials don't belong into the URL, which is shown in logs: set the variables that the \
                       cloud's own tools read";
            return Err(Error::Invalid(format!("the bucket's URL: {why}")));
        }
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| wrong("file:// needs an absolute path".to_owned()))?;
            return Ok(Self::Folder(path));
        }
        let known: &[&str] = match url.scheme() {
            "s3" => &["endpoint", "region", "path_style"],
            "gs" => &["endpoint"],
            "az" => &["account", "endpoint"],
            other => {
                return Err(wrong(format!(
                    "{other}:// isn't known; there are file://, s3://, gs:// and az://"
                )));
            }
        };
        let name = url.host_str().filter(|host| !host.is_empty());
        let name = name.ok_or_else(|| wrong("the bucket's name is missing".to_owned()))?.to_owned();
        let prefix = Path::from_url_path(url.path()).map_err(|e| wrong(e.to_string()))?;
        let mut options = std::collections::BTreeMap::new();
        for (key, value) in url.query_pairs() {
            if !known.contains(&&*key) {
                let why =
                    format!("the option {key:?} isn't known; {}:// takes {}", url.scheme(), known.join(", "));
                // The value isn't shown: it may be a secret.
                return Err(Error::Invalid(format!("bucket {}://{name}: {why}", url.scheme())));
            }
            options.insert(key.into_owned(), value.into_owned());
        }
        let endpoint = options.remove("endpoint").map(|endpoint| endpoint.trim_end_matches('/').to_owned());
        if let Some(endpoint) = &endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            return Err(wrong(format!("the endpoint {endpoint:?} needs http:// or https:// before it")));
        }
        match url.scheme() {
            "s3" => {
                let path_style = match options.remove("path_style").as_deref() {
                    None => None,
                    Some("true") => Some(true),
                    Some("false") => Some(false),
                    Some(other) => return Err(wrong(format!("path_style is true or false, not {other:?}"))),
                };
                Ok(Self::S3 { bucket: name, prefix, endpoint, region: options.remove("region"), path_style })
            }
            "gs" => Ok(Self::Gcs { bucket: name, prefix, endpoint }),
            _ => Ok(Self::Azure { container: name, prefix, account: options.remove("account"), endpoint }),
        }
    }

    /// Whether one of the two places is the other, or lies in it.
    pub fn overlaps(&self, other: &Self) -> bool {
        let nested = |one: &Path, two: &Path| one.prefix_matches(two) || two.prefix_matches(one);
        match (self, other) {
            (Self::Folder(one), Self::Folder(two)) => {
                // Links lead to the same place under other names; a folder that isn't there yet is no link.
                let real = |path: &PathBuf| real_path(path).unwrap_or_else(|| path.clone());
                let (one, two) = (real(one), real(two));
                one.starts_with(&two) || two.starts_with(&one)
            }
            (
                Self::S3 { bucket: one, prefix: at, endpoint, .. },
                Self::S3 { bucket: two, prefix: to, endpoint: other, .. },
            )
            | (
                Self::Gcs { bucket: one, prefix: at, endpoint },
                Self::Gcs { bucket: two, prefix: to, endpoint: other },
            ) => one == two && endpoint == other && nested(at, to),
            (
                Self::Azure { container: one, prefix: at, account, endpoint },
                Self::Azure { container: two, prefix: to, account: of, endpoint: other },
            ) => one == two && account == of && endpoint == other && nested(at, to),
            (Self::Memory, Self::Memory) => true,
            _ => false,
        }
    }

    /// What to look at when credentials are refused.
    pub(super) fn credentials_advice(&self) -> &'static str {
        match self {
            Self::Folder(_) => "check who owns the folder and its permissions",
            Self::S3 { .. } => {
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN or the machine's role, and \
                 what its policy allows"
            }
            Self::Gcs { .. } => {
                "check GOOGLE_APPLICATION_CREDENTIALS or the machine's service account, and its roles"
            }
            Self::Azure { .. } => {
                "check AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or the machine's identity, and its roles"
            }
            Self::Memory => "memory asks for none",
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Gcs { bucket, prefix, .. } => write!(f, "gs://{bucket}/{prefix}"),
            Self::Azure { container, prefix, .. } => write!(f, "az://{container}/{prefix}"),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// The real stores, with what the environment says of credentials and endpoints.
pub struct ByUrl {
    variables: Vec<(String, String)>,
}

impl ByUrl {
    /// With these variables: `AWS_*`, `GOOGLE_*` and `AZURE_*` are looked at.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// With the variables of this process.
    pub fn from_env() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text))
    }

    /// The variables that begin with `prefix` and are settings of a store.
    fn settings<K: FromStr>(&self, prefix: &str) -> impl Iterator<Item = (K, String)> {
        let ours = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())))
    }

    /// Plain HTTP is allowed only where somebody wrote it: in the URL, or in a variable that names the endpoint.
    fn client(&self, endpoint: Option<&String>) -> ClientOptions {
        let named = |name: &str| self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let endpoint = endpoint.or_else(|| ENDPOINTS.iter().find_map(|name| named(name)));
        ClientOptions::new()
            .with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")))
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
    }
}

impl ObjectStores for ByUrl {
    fn open(&self, location: &Location) -> Result<Opened> {
        let wrong = |e: object_store::Error| Error::Invalid(format!("bucket {location}: {}", causes(&e)));
        let retry = RetryConfig {
            backoff: CLIENT_BACKOFF,
            max_retries: CLIENT_RETRIES,
            retry_timeout: CLIENT_RETRY_TIMEOUT,
        };
        if !matches!(location, Location::Folder(_) | Location::Memory) {
            // TLS without a provider of its own; an error means that there is one already.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let (store, prefix): (Arc<dyn ObjectStore>, &Path) = match location {
            Location::Folder(path) => return open_folder(path),
            Location::Memory => return Handed(Arc::new(InMemory::new())).open(location),
            Location::S3 { bucket, prefix, endpoint, region, path_style } => {
                let from_env = AmazonS3Builder::new().with_client_options(self.client(endpoint.as_ref()));
                let set = |builder: AmazonS3Builder, (key, value)| builder.with_config(key, value);
                let mut builder =
                    self.settings("AWS_").fold(from_env, set).with_bucket_name(bucket).with_retry(retry);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(region) = region {
                    builder = builder.with_region(region);
                }
                if let Some(path_style) = path_style {
                    builder = builder.with_virtual_hosted_style_request(!path_style);
                }
                (Arc::new(builder.build().map_err(wrong)?), prefix)
            }
            Location::Gcs { bucket, prefix, endpoint } => {
                let from_env =
                    GoogleCloudStorageBuilder::new().with_client_options(self.client(endpoint.as_ref()));
                let set = |builder: GoogleCloudStorageBuilder, (key, value)| builder.with_config(key, value);
                let mut builder =
                    self.settings("GOOGLE_").fold(from_env, set).with_bucket_name(bucket).with_retry(retry);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                (Arc::new(builder.build().map_err(wrong)?), prefix)
            }
            Location::Azure { container, prefix, account, endpoint } => {
                let from_env =
                    MicrosoftAzureBuilder::new().with_client_options(self.client(endpoint.as_ref()));
                let set = |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(key, value);
                let mut builder = self
                    .settings("AZURE_")
                    .fold(from_env, set)
                    .with_container_name(container)
                    .with_retry(retry);
                if let Some(account) = account {
                    builder = builder.with_account(account);
                }
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                (Arc::new(builder.build().map_err(wrong)?), prefix)
            }
        };
        let whole = prefix.as_ref().is_empty();
        let store = if whole { store } else { Arc::new(PrefixStore::new(store, prefix.clone())) };
        Ok(Opened { store, folder: None })
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
fn open_folder(path: &std::path::Path) -> Result<Opened> {
    let made = std::fs::create_dir_all(path);
    made.map_err(|e| Error::Invalid(format!("bucket {}: can't make the folder: {e}", path.display())))?;
    let opened = LocalFileSystem::new_with_prefix(path);
    let store = opened.map_err(|e| Error::Invalid(format!("bucket {}: {}", path.display(), causes(&e))))?;
    Ok(Opened { store: Arc::new(store.with_fsync(true)), folder: Some(path.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Location {
        Location::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_a_folder() {
        assert_eq!(parsed("./bucket"), Location::Folder("./bucket".into()));
        assert_eq!(parsed("/srv/b c"), Location::Folder("/srv/b c".into()));
        assert_eq!(parsed("file:///srv/b%20c"), Location::Folder("/srv/b c".into()));
    }

    #[test]
    fn s3_takes_its_options_from_the_url() {
        let text = "s3://metrics/eu/prod?endpoint=http://127.0.0.1:9000/&region=eu-west-1&path_style=true";
        let expected = Location::S3 {
            bucket: "metrics".to_owned(),
            prefix: Path::from("eu/prod"),
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            region: Some("eu-west-1".to_owned()),
            path_style: Some(true),
        };
        assert_eq!(parsed(text), expected);
        assert_eq!(parsed(text).to_string(), "s3://metrics/eu/prod");
    }

    #[test]
    fn places_that_lie_in_each_other_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let (dir, link) = (dir.path().to_str().unwrap(), link.to_str().unwrap());
        for (one, two, so) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a/b", "/a/bc", false),
            (dir, link, true),
            ("s3://b/x", "s3://b", true),
            ("s3://b/x", "s3://b/x/y?region=r", true),
            ("s3://b/x", "s3://b/xy", false),
            ("s3://b", "s3://b?endpoint=http://h", false),
            ("s3://b", "gs://b", false),
            ("gs://b/x", "gs://c/x", false),
            ("az://c?account=a", "az://c/p?account=a", true),
            ("memory:", "memory:", true),
        ] {
            assert_eq!(parsed(one).overlaps(&parsed(two)), so, "{one} {two}");
            assert_eq!(parsed(two).overlaps(&parsed(one)), so, "{two} {one}");
        }
    }

    #[test]
    fn every_cloud_opens_without_a_look_at_the_network() {
        for text in ["s3://b/p?region=us-east-1", "gs://b", "az://c/p?account=a", "memory:"] {
            ByUrl::new([]).open(&parsed(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("", "folder"),
            ("s4://b", "s3://"),
            ("s3://", "name"),
            ("s3://b?endpoint=localhost:9000", "http://"),
            ("s3://b?path_style=yes", "path_style"),
            ("gs://b?region=x", "endpoint"),
            ("s3://b?secret_access_key=hunter2", "endpoint, region"),
            ("s3://key:hunter2@b", "credentials"),
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
