-- +goose Up

-- Why and since when the collector leaves an account alone; null: it does not, or nobody
-- said why. A release that does not know it does not write it, and works on.
alter table account add column hold_reason text, add column hold_since timestamptz;
update cluster set schema = 3;
