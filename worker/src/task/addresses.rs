//! Decides to which addresses HTTP tasks may connect, and resolves names to those only.
//!
//! Link-local addresses and the metadata services of clouds are refused unless they are allowed: a
//! redirect or a name must not lead a worker to the credentials of its host. What was resolved and
//! checked is what is connected to.
//!
//! Deliberately absent: requests through a proxy, which resolves names itself; private networks,
//! in which most endpoints of tasks are.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use longshore_protocol::Invalid;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that are not at a link-local address: those of Alibaba Cloud, Azure, Oracle
/// Cloud, AWS (over IPv6, and of EKS) and Google Cloud (over IPv6).
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The beginning of the IPv6 addresses by which NAT64 reaches IPv4 addresses (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// The link-local and metadata addresses to which HTTP tasks may connect all the same. All other
/// addresses are allowed in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAddresses(Arc<[IpNet]>);

/// The error of a connection to an address that is not allowed.
#[derive(Debug)]
pub(super) struct RefusedAddress {
    host: String,
    address: IpAddr,
}

impl std::error::Error for RefusedAddress {}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address } = self;
        if host.parse() != Ok(*address) {
            write!(f, "{host} is ")?;
        }
        write!(
            f,
            "{address}, a link-local or metadata address; if that is intended, add it to the \
             setting http_allow_addresses"
        )
    }
}

impl HttpAddresses {
    /// These addresses and networks: `169.254.170.2`, `169.254.0.0/16`, `fe80::/10`.
    ///
    /// # Errors
    /// For a text that is neither.
    pub fn allowing<S: AsRef<str>>(allowed: &[S]) -> Result<Self, Invalid> {
        let parse = |(at, text): (usize, &S)| {
            let text = text.as_ref();
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse::<IpNet>()).map_err(|_| Invalid {
                place: format!("http_allow_addresses[{at}]"),
                found: format!("`{text}` is no address and no network"),
                allowed: "use addresses such as 169.254.170.2 and networks such as fe80::/10"
                    .into(),
            })
        };
        Ok(Self(allowed.iter().enumerate().map(parse).collect::<Result<_, _>>()?))
    }

    /// Fails if the host of a URL is an address that is not allowed. Names are checked when they
    /// are resolved.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), RefusedAddress> {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host.parse().map_or(Ok(()), |address| self.check(host, address))
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), RefusedAddress> {
        let meant = meant(address);
        let is_allowed = || self.0.iter().any(|net| net.contains(&address) || net.contains(&meant));
        if is_sensitive(meant) && !is_allowed() {
            return Err(RefusedAddress { host: host.to_owned(), address });
        }
        Ok(())
    }
}

/// The address that packets to this one reach: an IPv6 address may stand for an IPv4 address.
fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == NAT64 => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        other => other,
    }
}

fn is_sensitive(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    is_link_local || METADATA.contains(&address)
}

/// Looks up the addresses of a name.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Resolves names; fails for one that has an address which is not allowed.
#[derive(Clone)]
pub(super) struct CheckedResolver {
    pub(super) addresses: HttpAddresses,
    pub(super) lookup: Lookup,
}

impl CheckedResolver {
    /// Resolves names as other programs of this host do.
    pub(super) fn new(addresses: HttpAddresses) -> Self {
        let lookup = |host: String| {
            async move {
                let found = tokio::net::lookup_host((host, 0)).await?;
                Ok(found.collect())
            }
            .boxed()
        };
        Self { addresses, lookup: Arc::new(lookup) }
    }

    /// The addresses of a host, with port 0.
    pub(super) async fn addresses_of(
        &self,
        host: &str,
    ) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = (self.lookup)(host.to_owned()).await?;
        for address in &found {
            self.addresses.check(host, address.ip())?;
        }
        Ok(found)
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.addresses_of(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(allowed: &[&str], url: &str) -> Option<String> {
        let addresses = HttpAddresses::allowing(allowed).expect("good addresses");
        let url = Url::parse(url).expect("a good URL");
        addresses.check_url(&url).err().map(|error| error.to_string())
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_however_they_are_written() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.0.1",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "[fe80::1]",
            "[febf::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
        ] {
            assert!(refusal(&[], &format!("http://{host}/latest")).is_some(), "{host}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "[::1]", "[fd00::1]", "169.253.0.1", "example.org"] {
            assert_eq!(refusal(&[], &format!("http://{host}/")), None, "{host}");
        }
    }

    #[test]
    fn the_refusal_names_the_address_and_the_setting() {
        assert_eq!(
            refusal(&[], "http://169.254.169.254/").as_deref(),
            Some(
                "169.254.169.254, a link-local or metadata address; if that is intended, add it \
                 to the setting http_allow_addresses"
            )
        );
    }

    #[test]
    fn addresses_and_networks_can_be_allowed() {
        assert_eq!(refusal(&["169.254.170.2"], "http://169.254.170.2/"), None);
        assert!(refusal(&["169.254.170.2"], "http://169.254.169.254/").is_some());
        assert_eq!(refusal(&["169.254.0.0/16"], "http://[::ffff:169.254.169.254]/"), None);
        assert_eq!(refusal(&["fe80::/10"], "http://[fe80::1]/"), None);
        for bad in ["", "localhost", "169.254.0.0/33", "10.0.0.256"] {
            let error = HttpAddresses::allowing(&["::1", bad]).expect_err(bad);
            let said = format!(
                "http_allow_addresses[1]: `{bad}` is no address and no network; use addresses \
                 such as 169.254.170.2 and networks such as fe80::/10"
            );
            assert_eq!(error.to_string(), said);
        }
    }
}
