package testredis

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sallyport/internal/testserver"
)

func TestSentinel(t *testing.T) {
	t.Parallel()
	set, other := StartSentinel(t), StartSentinel(t)
	o := options("")
	o.Addrs, o.MasterName = set.Addresses, set.Master
	o.MaxRetries = 1
	client := connect(t, o)
	counts := counter(t, client)

	counts("at first")
	set.Failover()
	counts("after Failover")

	set.WaitWhole()
	killed := set.KillMaster()
	counts("after KillMaster")
	killed.Restart()
	set.WaitWhole()
	counts("after Restart") // whichever is the master: on a slow machine the sentinels may change it once more

	if got := other.Servers[0].Do("DBSIZE"); got != "0" {
		t.Errorf("the other set has keys: %s", got)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	cluster, other := StartCluster(t), StartCluster(t)
	o := options("")
	o.Addrs = cluster.Addresses
	settings := o.Cluster()
	settings.ClusterStateReloadInterval = 100 * time.Millisecond // by default a minute, in which a dead master is asked
	client := redis.NewClusterClient(settings)
	t.Cleanup(func() { client.Close() })
	counts := counter(t, client)
	slot := int(client.ClusterKeySlot(t.Context(), key).Val())

	counts("at first")
	cluster.Failover(slot)
	counts("after Failover")

	cluster.WaitWhole()
	killed := cluster.KillMaster(slot)
	counts("after KillMaster")
	killed.Restart()
	cluster.WaitWhole()
	counts("after Restart")

	for _, s := range other.Servers {
		if got := s.Do("DBSIZE"); got != "0" {
			t.Errorf("%s of the other cluster has keys: %s", s.Address, got)
		}
	}
}

const key = "sallyport:x"

// counter returns a function that counts with a script until that works.
func counter(t *testing.T, client redis.UniversalClient) func(when string) {
	return func(when string) {
		t.Helper()
		began := time.Now()
		testserver.Eventually(t, when, func() error {
			return redis.NewScript(take).Run(t.Context(), client, []string{key}, 1).Err()
		})
		t.Logf("%s works after %v", when, time.Since(began))
	}
}
