//! UDP that was meant for somebody else: sockets that take it, and for whom it was.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Has a UDP socket take what was meant for others and is handed to it, and say for whom it was. Takes
/// `CAP_NET_RAW` over the network namespace.
pub fn receive_for_others(socket: impl AsFd, six: bool) -> io::Result<()> {
    set(&socket, libc::SOL_IP, libc::IP_TRANSPARENT)?;
    match six {
        true => set(&socket, libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR),
        false => set(&socket, libc::SOL_IP, libc::IP_RECVORIGDSTADDR),
    }
}

fn set(socket: &impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the option takes an int, which lives until the call returns.
    let done = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives one datagram without waiting: its length, who sent it, and to whom.
pub fn receive_original(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, SocketAddr)> {
    // SAFETY: plain old data, for which zeros are a value.
    let mut from: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // As u64 for its alignment: a header of control messages begins with a word.
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as above.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all that `message` points to lives until the call returns, and has the lengths it says.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut to = None;
    // SAFETY: the kernel has filled `message`, whose buffers still live; the macros walk within the length
    // that it has set.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let kind = ((*header).cmsg_level, (*header).cmsg_type);
            let original = kind == (libc::SOL_IP, libc::IP_ORIGDSTADDR)
                || kind == (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR);
            if original {
                let mut address: libc::sockaddr_storage = std::mem::zeroed();
                let length = ((*header).cmsg_len as usize)
                    .saturating_sub(libc::CMSG_LEN(0) as usize)
                    .min(size_of_val(&address));
                let data = libc::CMSG_DATA(header);
                std::ptr::copy_nonoverlapping(data, (&raw mut address).cast::<u8>(), length);
                to = address_of(&address);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    match (address_of(&from), to) {
        (Some(from), Some(to)) => Ok((count as usize, from, to)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let pointer = &raw const *storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which of the addresses it is, and the storage is larger than each.
            let four = unsafe { &*pointer.cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(four.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(address, u16::from_be(four.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let six = unsafe { &*pointer.cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(six.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(address, u16::from_be(six.sin6_port), 0, 0).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};

    use super::*;

    #[test]
    fn nothing_comes_without_being_asked_for() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = [0; 16];
        let error = receive_original(socket.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let to = socket.local_addr().unwrap();
        socket.send_to(b"hello", to).unwrap();
        // Nobody asked the kernel for whom it was.
        let error = receive_original(socket.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        set(&socket, libc::SOL_IP, libc::IP_RECVORIGDSTADDR).unwrap();
        socket.send_to(b"hello", to).unwrap();
        assert_eq!(receive_original(socket.as_fd(), &mut buffer).unwrap(), (5, to, to));
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(to.ip(), IpAddr::from([127, 0, 0, 1]));
    }
}
