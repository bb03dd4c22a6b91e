// Package web renders the dashboards: plain pages, made on the server, that stay
// live through server-sent events. It knows nothing of masters and schedulers;
// it shows what the views hold that it declares.
package web
