-- +goose Up

-- Until when the protocol of an account's sessions is written to the log; null: not at
-- all. A release that does not know it does not write it, and works on.
alter table account add column trace_until timestamptz;
update cluster set schema = 2;
