#include "shim.h"

#include <stdio.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_log.h>

int shim_errno(void)
{
	return rte_errno;
}

unsigned int shim_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t shim_tsc(void)
{
	return rte_rdtsc();
}

int shim_log_to_stderr(void)
{
	return rte_openlog_stream(stderr);
}

int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void shim_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

/* One segment with its VLAN tag in the data; 0, or the frame is not usable. */
static inline int make_plain(struct rte_mbuf **mbuf)
{
	if (unlikely((*mbuf)->nb_segs != 1) && rte_pktmbuf_linearize(*mbuf) != 0)
		return -1;
	if (unlikely((*mbuf)->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED))
		return rte_vlan_insert(mbuf);
	return 0;
}

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count,
		       uint16_t *dropped)
{
	uint16_t received = rte_eth_rx_burst(port, queue, mbufs, count);
	uint16_t kept = 0;

	for (uint16_t i = 0; i < received; i++) {
		struct rte_mbuf *mbuf = mbufs[i];

		if (unlikely(make_plain(&mbuf) != 0))
			rte_pktmbuf_free(mbuf);
		else
			mbufs[kept++] = mbuf;
	}
	*dropped = received - kept;
	return kept;
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

unsigned int shim_ring_enqueue_burst(struct rte_ring *ring, void *const *items, unsigned int count)
{
	return rte_ring_sp_enqueue_burst(ring, items, count, NULL);
}

unsigned int shim_ring_dequeue_burst(struct rte_ring *ring, void **items, unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, items, count, NULL);
}

unsigned int shim_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}

unsigned int shim_ring_free_count(const struct rte_ring *ring)
{
	return rte_ring_free_count(ring);
}

unsigned int shim_ring_capacity(const struct rte_ring *ring)
{
	return rte_ring_get_capacity(ring);
}

int shim_port_info(uint16_t port, struct shim_port_info *info)
{
	struct rte_eth_dev_info device;
	int code = rte_eth_dev_info_get(port, &device);

	if (code != 0)
		return code;
	*info = (struct shim_port_info){
		.driver_name = device.driver_name,
		.max_rx_pktlen = device.max_rx_pktlen,
		.min_mtu = device.min_mtu,
		.max_mtu = device.max_mtu,
		.max_rx_queues = device.max_rx_queues,
		.max_tx_queues = device.max_tx_queues,
		.if_index = device.if_index,
	};
	return 0;
}

int shim_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t mtu)
{
	struct rte_eth_dev_info device;
	struct rte_eth_conf conf;
	int code = rte_eth_dev_info_get(port, &device);

	if (code != 0)
		return code;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	conf.rx_adv_conf.rss_conf.rss_hf = device.flow_type_rss_offloads &
					   (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
	if (rx_queues > 1 && conf.rx_adv_conf.rss_conf.rss_hf != 0)
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	return rte_eth_dev_configure(port, rx_queues, tx_queues, &conf);
}

int shim_port_stats(uint16_t port, struct shim_port_stats *stats)
{
	struct rte_eth_stats device;
	int code = rte_eth_stats_get(port, &device);

	if (code != 0)
		return code;
	*stats = (struct shim_port_stats){
		.ipackets = device.ipackets,
		.opackets = device.opackets,
		.ibytes = device.ibytes,
		.obytes = device.obytes,
		.imissed = device.imissed,
		.ierrors = device.ierrors,
		.oerrors = device.oerrors,
		.rx_nombuf = device.rx_nombuf,
	};
	return 0;
}

int shim_port_link_up(uint16_t port)
{
	struct rte_eth_link link;
	int code = rte_eth_link_get_nowait(port, &link);

	return code != 0 ? code : link.link_status == RTE_ETH_LINK_UP;
}

int shim_crypto_info(uint8_t device, uint16_t key_len, uint16_t tag_len, uint16_t aad_len,
		     uint16_t iv_len, struct shim_crypto_info *info)
{
	const struct rte_cryptodev_symmetric_capability *capability;
	struct rte_cryptodev_sym_capability_idx index = {
		.type = RTE_CRYPTO_SYM_XFORM_AEAD,
		.algo.aead = RTE_CRYPTO_AEAD_AES_GCM,
	};
	struct rte_cryptodev_info details;

	if (!rte_cryptodev_is_valid_dev(device))
		return -ENODEV;
	memset(&details, 0, sizeof(details));
	rte_cryptodev_info_get(device, &details);
	capability = rte_cryptodev_sym_capability_get(device, &index);
	*info = (struct shim_crypto_info){
		.driver_name = details.driver_name,
		.feature_flags = details.feature_flags,
		.max_queue_pairs = details.max_nb_queue_pairs,
		.hardware = !!(details.feature_flags & RTE_CRYPTODEV_FF_HW_ACCELERATED),
		.cpu_crypto = !!(details.feature_flags & RTE_CRYPTODEV_FF_SYM_CPU_CRYPTO),
		.in_place_sgl = !!(details.feature_flags & RTE_CRYPTODEV_FF_IN_PLACE_SGL),
		.aes_gcm = capability != NULL &&
			   rte_cryptodev_sym_capability_check_aead(capability, key_len, tag_len,
								   aad_len, iv_len) == 0,
	};
	return 0;
}
