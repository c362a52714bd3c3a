//! dataplane/dpdk
