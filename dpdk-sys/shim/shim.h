/*
 * What Rust cannot take from DPDK's headers as it is: static inlines, as functions on whole
 * bursts, and structures whose layout differs between DPDK versions, flattened to our own.
 * No policy lives here.
 */
#ifndef SHARDGATE_DPDK_SHIM_H
#define SHARDGATE_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/* Where the real structure has the fields that Rust's mirror of it has; src/lib.rs compares. */
enum shim_mbuf_layout {
	SHIM_MBUF_SIZE = sizeof(struct rte_mbuf),
	SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SHIM_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SHIM_MBUF_PORT = offsetof(struct rte_mbuf, port),
	SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SHIM_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SHIM_MBUF_POOL = offsetof(struct rte_mbuf, pool),
	SHIM_MBUF_DYNFIELD1 = offsetof(struct rte_mbuf, dynfield1),
};

/* ---- EAL ------------------------------------------------------------------------------- */

/* The error of the last DPDK call of this thread. */
int shim_errno(void);
/* LCORE_ID_ANY (UINT_MAX) on a thread that EAL does not know. */
unsigned int shim_lcore_id(void);
uint64_t shim_tsc(void);
/* Log to stderr only; before rte_eal_init. stdout belongs to the program. */
int shim_log_to_stderr(void);

/* ---- mbufs ----------------------------------------------------------------------------- */

/* 0 and all `count` mbufs, or an error and none. */
int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void shim_mbuf_free(struct rte_mbuf *mbuf);

/* ---- queues ---------------------------------------------------------------------------- */

/*
 * Receives, puts stripped VLAN tags back and makes every frame one segment. Frames for which
 * that fails are freed and counted in `dropped`. `mbufs` is dense.
 */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count,
		       uint16_t *dropped);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

/* ---- rings, single producer and single consumer ---------------------------------------- */

unsigned int shim_ring_enqueue_burst(struct rte_ring *ring, void *const *items,
				     unsigned int count);
unsigned int shim_ring_dequeue_burst(struct rte_ring *ring, void **items, unsigned int count);
unsigned int shim_ring_count(const struct rte_ring *ring);
unsigned int shim_ring_free_count(const struct rte_ring *ring);
unsigned int shim_ring_capacity(const struct rte_ring *ring);

/* ---- ports ----------------------------------------------------------------------------- */

struct shim_port_info {
	const char *driver_name;
	uint32_t max_rx_pktlen;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint32_t if_index;
};
int shim_port_info(uint16_t port, struct shim_port_info *info);

/* Spreads flows over the rx queues if the device can; no other offload. */
int shim_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t mtu);

struct shim_port_stats {
	uint64_t ipackets;
	uint64_t opackets;
	uint64_t ibytes;
	uint64_t obytes;
	uint64_t imissed;
	uint64_t ierrors;
	uint64_t oerrors;
	uint64_t rx_nombuf;
};
int shim_port_stats(uint16_t port, struct shim_port_stats *stats);

/* 1 up, 0 down, negative: an error. */
int shim_port_link_up(uint16_t port);

/* ---- crypto devices -------------------------------------------------------------------- */

struct shim_crypto_info {
	const char *driver_name;
	uint64_t feature_flags;
	uint32_t max_queue_pairs;
	/* The features that a unit's choice depends on. */
	uint8_t hardware;
	uint8_t cpu_crypto;
	uint8_t in_place_sgl;
	/* AES-GCM with the key, tag, additional data and IV lengths asked for. */
	uint8_t aes_gcm;
};
int shim_crypto_info(uint8_t device, uint16_t key_len, uint16_t tag_len, uint16_t aad_len,
		     uint16_t iv_len, struct shim_crypto_info *info);

#endif
