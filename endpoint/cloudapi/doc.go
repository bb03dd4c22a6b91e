// Package cloudapi is the CloudAPI of an endpoint: packages, limits, networks
// and machines of an account, and its feed of changes, for requests that are
// signed with one of the account's SSH keys. It knows nothing of Docker's API;
// both are views of an endpoint.Cloud.
//
//	api := cloudapi.New(cloud, cloudapi.Options{Docker: "tcp://…:2376", URL: "https://…"})
//	err := endpoint.ServeTLS(ctx, listener, cloud.Authority(), hosts, api, log)
package cloudapi
