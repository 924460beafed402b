//! Where a service listens: on one address, or on all of the host's.

use std::io::{ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1_024;

/// Listens on an address; without one on all addresses of the host, those of IPv6 and those of IPv4. Port 0 takes any
/// free one.
///
/// # Errors
/// If the port is taken, or the address is none of the host's.
pub fn listen(address: Option<IpAddr>, port: u16) -> Result<TcpListener> {
    if let Some(address) = address {
        return bind((address, port).into());
    }
    match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        // A port that is taken is taken; a host without IPv6 has IPv4.
        Err(error) if error.kind() != ErrorKind::AddrInUse => bind((Ipv4Addr::UNSPECIFIED, port).into()),
        bound => bound,
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
