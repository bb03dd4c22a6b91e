package server

import "slices"

// zeroMetrics are the names that are always there.
var zeroMetrics = metricNames()

var plainMetrics = []string{
	"allocator/event_queue_dispatches", "allocator/mesos/allocation_run_latency_ms", "allocator/mesos/allocation_run_latency_ms/count",
	"allocator/mesos/allocation_run_ms", "allocator/mesos/allocation_run_ms/count", "allocator/mesos/allocation_runs",
	"allocator/mesos/event_queue_dispatches", "allocator/mesos/resources/cpus/offered_or_allocated",
	"allocator/mesos/resources/cpus/total", "allocator/mesos/resources/disk/offered_or_allocated", "allocator/mesos/resources/disk/total",
	"allocator/mesos/resources/mem/offered_or_allocated", "allocator/mesos/resources/mem/total", "master/cpus_percent",
	"master/cpus_revocable_percent", "master/cpus_revocable_total", "master/cpus_revocable_used", "master/cpus_total", "master/cpus_used",
	"master/disk_percent", "master/disk_revocable_percent", "master/disk_revocable_total", "master/disk_revocable_used",
	"master/disk_total", "master/disk_used", "master/dropped_messages", "master/elected", "master/event_queue_dispatches",
	"master/event_queue_http_requests", "master/event_queue_messages", "master/frameworks_active", "master/frameworks_connected",
	"master/frameworks_disconnected", "master/frameworks_inactive", "master/gpus_percent", "master/gpus_revocable_percent",
	"master/gpus_revocable_total", "master/gpus_revocable_used", "master/gpus_total", "master/gpus_used", "master/http_cache_hits",
	"master/invalid_executor_to_framework_messages", "master/invalid_framework_to_executor_messages",
	"master/invalid_operation_status_update_acknowledgements", "master/invalid_operation_status_updates",
	"master/invalid_status_update_acknowledgements", "master/invalid_status_updates", "master/mem_percent", "master/mem_revocable_percent",
	"master/mem_revocable_total", "master/mem_revocable_used", "master/mem_total", "master/mem_used", "master/messages_authenticate",
	"master/messages_deactivate_framework", "master/messages_decline_offers", "master/messages_executor_to_framework",
	"master/messages_exited_executor", "master/messages_framework_to_executor", "master/messages_kill_task",
	"master/messages_launch_tasks", "master/messages_operation_status_update", "master/messages_operation_status_update_acknowledgement",
	"master/messages_reconcile_operations", "master/messages_reconcile_tasks", "master/messages_register_framework",
	"master/messages_register_slave", "master/messages_reregister_framework", "master/messages_reregister_slave",
	"master/messages_resource_request", "master/messages_revive_offers", "master/messages_status_update",
	"master/messages_status_update_acknowledgement", "master/messages_suppress_offers", "master/messages_unregister_framework",
	"master/messages_unregister_slave", "master/messages_update_slave", "master/operator_event_stream_subscribers",
	"master/outstanding_offers", "master/recovery_slave_removals", "master/slave_registrations", "master/slave_removals",
	"master/slave_removals/reason_registered", "master/slave_removals/reason_unhealthy", "master/slave_removals/reason_unregistered",
	"master/slave_reregistrations", "master/slave_shutdowns_canceled", "master/slave_shutdowns_completed",
	"master/slave_shutdowns_scheduled", "master/slave_unreachable_canceled", "master/slave_unreachable_completed",
	"master/slave_unreachable_scheduled", "master/slaves_active", "master/slaves_connected", "master/slaves_disconnected",
	"master/slaves_inactive", "master/slaves_unreachable", "master/tasks_dropped", "master/tasks_error", "master/tasks_failed",
	"master/tasks_finished", "master/tasks_gone", "master/tasks_gone_by_operator", "master/tasks_killed", "master/tasks_killing",
	"master/tasks_lost", "master/tasks_running", "master/tasks_staging", "master/tasks_starting", "master/tasks_unreachable",
	"master/uptime_secs", "master/valid_executor_to_framework_messages", "master/valid_framework_to_executor_messages",
	"master/valid_operation_status_update_acknowledgements", "master/valid_operation_status_updates",
	"master/valid_status_update_acknowledgements", "master/valid_status_updates", "registrar/log/ensemble_size", "registrar/log/recovered",
	"registrar/queued_operations", "registrar/registry_size_bytes", "registrar/state_fetch_ms", "registrar/state_store_ms",
	"registrar/state_store_ms/count", "system/cpus_total", "system/load_15min", "system/load_1min", "system/load_5min",
	"system/mem_free_bytes", "system/mem_total_bytes",
}

func metricNames() []string {
	names := slices.Clone(plainMetrics)
	for _, name := range []string{"allocator/mesos/allocation_run_latency_ms", "allocator/mesos/allocation_run_ms", "registrar/state_store_ms"} {
		for _, part := range []string{"max", "min", "p50", "p90", "p95", "p99", "p999", "p9999"} {
			names = append(names, name+"/"+part)
		}
	}
	return append(names, operationNames()...)
}

func operationNames() []string {
	var names []string
	for _, state := range []string{"dropped", "error", "failed", "finished", "gone_by_operator", "pending", "recovering", "total", "unreachable"} {
		names = append(names, "master/operations/"+state)
		for _, op := range operations {
			if op != "launch" && op != "launch_group" {
				names = append(names, "master/operations/"+op+"/"+state)
			}
		}
	}
	return names
}
