//! The addresses of a database, one by one: the library goes on to the next one only where none answers, and not where
//! the server that answers is another one than is asked for.

use std::net::IpAddr;

use rand::seq::SliceRandom as _;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

/// A configuration for each address of each host, in the order in which they are tried.
pub(super) async fn each(config: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let number = hosts.len().max(addresses.len());
    let fits = |length: usize| length <= 1 || length == number;
    let agree = hosts.is_empty() || addresses.is_empty() || hosts.len() == addresses.len();
    if number == 0 || !agree || !fits(ports.len()) {
        // The library says what is wrong.
        return vec![config.clone()];
    }
    let mut each = Vec::new();
    for at in 0..number {
        let port = ports.get(at).or_else(|| ports.first()).copied().unwrap_or(5432);
        let host = hosts.get(at);
        let known = addresses.get(at).copied();
        let found = match (known, host) {
            (Some(address), _) => vec![address],
            (None, Some(Host::Tcp(name))) => look_up(name, port).await,
            (None, _) => Vec::new(),
        };
        let of = |address: Option<IpAddr>| {
            let mut one = without_hosts(config);
            one.port(port);
            match host {
                Some(Host::Tcp(name)) => one.host(name),
                #[cfg(unix)]
                Some(Host::Unix(path)) => one.host_path(path),
                None => &mut one,
            };
            if let Some(address) = address {
                one.hostaddr(address);
            }
            one
        };
        if found.is_empty() {
            each.push(of(None));
        }
        each.extend(found.into_iter().map(|address| of(Some(address))));
    }
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        each.shuffle(&mut rand::rng());
    }
    each
}

async fn look_up(name: &str, port: u16) -> Vec<IpAddr> {
    match tokio::net::lookup_host((name, port)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        // The library looks it up once more, and says why it cannot.
        Err(_) => Vec::new(),
    }
}

fn without_hosts(config: &Config) -> Config {
    let mut bare = Config::new();
    if let Some(user) = config.get_user() {
        bare.user(user);
    }
    if let Some(password) = config.get_password() {
        bare.password(password);
    }
    if let Some(name) = config.get_dbname() {
        bare.dbname(name);
    }
    if let Some(options) = config.get_options() {
        bare.options(options);
    }
    if let Some(name) = config.get_application_name() {
        bare.application_name(name);
    }
    bare.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle());
    if let Some(timeout) = config.get_connect_timeout() {
        bare.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        bare.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        bare.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        bare.keepalives_retries(retries);
    }
    bare
}
