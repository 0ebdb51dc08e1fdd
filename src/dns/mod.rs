//! DNS: names of VMs answered with authority (RFC 1035, RFC 2308), and everything else of guests passed on to the host's own resolvers.
