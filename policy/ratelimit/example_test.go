package ratelimit_test

import (
	"fmt"
	"time"

	"sallyport/policy/ratelimit"
)

// A snapshot finds its buckets once; each call takes from all its limits, or from none.
func Example() {
	tiers, err := ratelimit.NewTiers([]ratelimit.Tier{
		{Name: "Trial", RequestCount: 3, UnitTime: 1, TimeUnit: ratelimit.Minute},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	gold, _ := tiers.Find("Gold")
	trial, _ := tiers.Find("Trial")

	local := ratelimit.NewLocal(time.Now)
	api := local.Bucket(ratelimit.Key{API: "orders:1.0.0", Level: ratelimit.LevelAPI}, gold)
	acme := local.Bucket(ratelimit.Key{API: "orders:1.0.0", Level: ratelimit.LevelClient, KeyType: "PRODUCTION", Name: "acme"}, trial)

	now := time.Date(2027, time.March, 1, 9, 0, 0, 0, time.UTC)
	for range 4 {
		v := ratelimit.TakeAll(now, api, nil, acme)
		fmt.Printf("%-5v RateLimit: %s\n", v.Allowed, ratelimit.AppendLimit(nil, v))
		if !v.Allowed {
			fmt.Printf("Retry-After: %d\n", ratelimit.RetryAfterSeconds(v.RetryAfter))
			fmt.Printf("RateLimit-Policy: %s\n", ratelimit.AppendPolicy(nil, v))
		}
	}
	// Output:
	// true  RateLimit: "certificate";r=2;t=20
	// true  RateLimit: "certificate";r=1;t=40
	// true  RateLimit: "certificate";r=0;t=60
	// false RateLimit: "certificate";r=0;t=20
	// Retry-After: 20
	// RateLimit-Policy: "certificate";q=3;w=60
}
