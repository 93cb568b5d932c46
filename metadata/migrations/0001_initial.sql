-- +goose Up

-- What this database is, and who may work with it: one row.
create table cluster (
  one           boolean primary key default true check (one),
  schema        int not null,               -- number of this schema
  oldest_reader int not null,               -- releases that know less of it than this must not serve
  write_format  int not null,               -- version of the stored formats that may be written
  generation    bigint not null default 0,  -- part of the epoch, raised by an operator after a restore
  accepted      bigint                      -- epoch at which an operator last said that all is well
);
insert into cluster (schema, oldest_reader, write_format) values (1, 1, 1);

-- The epoch of the database: the timeline, which every promotion raises, and the generation.
-- +goose StatementBegin
create function epoch() returns bigint language plpgsql stable as $$
begin
  return (select (('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint << 24) | generation from cluster);
end
$$;
-- +goose StatementEnd

-- A database that is made here has no mail yet, so that all is well with it. After
-- a restore or a failover the epoch is another, until an operator accepts it.
update cluster set accepted = epoch();

-- Ends a statement, of which something came up short, with an error of ours.
-- +goose StatementBegin
create function refuse(why text) returns text language plpgsql volatile as $$
begin
  raise exception using errcode = 'ST001', message = why;
end
$$;
-- +goose StatementEnd

-- The directory: who there is.
create table tenant (
  id      bigint primary key,
  name    text not null collate "C" unique,
  created timestamptz not null default now()
);

create table domain (
  name      text collate "C" primary key,
  tenant_id bigint not null references tenant,
  created   timestamptz not null default now()
);
create index domain_tenant on domain (tenant_id);

create table account (
  account_id       bigint primary key,
  tenant_id        bigint not null,
  name             text not null collate "C" unique,
  domain           text not null collate "C",
  state            smallint not null default 1,  -- 1 active, 2 suspended, 3 being deleted
  state_since      timestamptz not null default now(),
  auth_version     bigint not null default 1,
  hold             boolean not null default false,
  listseq          bigint not null default 1,
  next_mailbox     bigint not null default 1,
  last_uidvalidity bigint not null default 0,
  created          timestamptz not null default now(),
  scanned          timestamptz not null default now(),  -- when the collector last looked for orphans
  emptied          timestamptz                          -- being deleted: since when no object is found
) with (fillfactor = 70);
create index account_domain on account (domain, name);
create index account_deleting on account (account_id) where state = 3;
create index account_scanned on account (scanned);

create table address (
  address    text collate "C" primary key,
  account_id bigint not null
);
create index address_account on address (account_id);

create table credential (
  account_id bigint not null,
  kind       text not null,
  secret     text not null,
  primary key (account_id, kind)
);

-- Limits and use of the accounts that have limits; the others have no row.
create table quota (
  account_id   bigint primary key,
  bytes        bigint not null,
  messages     bigint not null,
  max_bytes    bigint not null,  -- 0: no limit
  max_messages bigint not null
) with (fillfactor = 50);

-- The row of a mailbox changes with every commit: it has room for the next
-- version, and no index on what changes.
create table mailbox (
  account_id    bigint not null,
  id            bigint not null,
  uidvalidity   bigint not null,
  uidnext       bigint not null default 1,
  modseq        bigint not null default 1,
  stamp         bigint not null,
  epoch         bigint not null,
  messages      bigint not null default 0,
  unseen        bigint not null default 0,
  deleted       bigint not null default 0,
  bytes         bigint not null default 0,
  deleted_bytes bigint not null default 0,
  recent        bigint not null default 1,
  horizon       bigint not null default 0,
  listseq       bigint not null,
  dropped       boolean not null default false,
  dropped_at    timestamptz,
  name          text not null collate "C",
  old_name      text collate "C",
  special_use   text[] not null default '{}',
  keywords      text[] not null default '{}',
  jumps         bigint[] not null default '{}',
  primary key (account_id, id)
) with (fillfactor = 50);
create unique index mailbox_name on mailbox (account_id, name) where not dropped;
create index mailbox_dropped on mailbox (dropped_at) where dropped;

-- The flags of 128 UIDs to a row. max_modseq stands behind slots, because an
-- update logs one span from the first changed byte to the last. A third of
-- the page is free: the next version of one row fits, and every update is HOT.
create table flags (
  account_id bigint not null,
  mailbox_id bigint not null,
  chunk      int not null,
  slots      bytea not null,
  max_modseq bigint not null,
  primary key (account_id, mailbox_id, chunk)
) with (fillfactor = 70);
alter table flags alter slots set storage plain;

-- Written once, never changed.
create table message (
  account_id    bigint not null,
  mailbox_id    bigint not null,
  uid           bigint not null,
  internal_date timestamptz not null,
  save_date     timestamptz not null,
  size          bigint not null,
  email_id      bigint not null,
  thread_id     bigint not null,
  object        uuid not null,
  extent        bytea not null,
  summary       bytea not null,
  primary key (account_id, mailbox_id, uid)
);
alter table message alter summary set storage main;
alter table message alter extent set storage main;

-- How many messages own an object, if COPY made it more than one; 0: nobody
-- does any more, and it is doomed. What has no row here has one owner.
create table blob_share (
  account_id bigint not null,
  object     uuid not null,
  refs       int not null,
  primary key (account_id, object)
);

create table subscription (
  account_id bigint not null,
  name       text not null collate "C",
  subscribed boolean not null,
  listseq    bigint not null,
  primary key (account_id, name)
);

-- Deliveries of the last days, so that one tried again is known.
create table delivery (
  account_id bigint not null,
  digest     bytea not null,
  mailbox_id bigint not null,
  uid        bigint not null,
  at         timestamptz not null default now(),
  primary key (account_id, digest)
);
create index delivery_at on delivery (at);

-- Which thread a message id belongs to.
create table thread_ref (
  account_id bigint not null,
  msgid_hash bigint not null,
  thread_id  bigint not null,
  at         timestamptz not null default now(),
  primary key (account_id, msgid_hash)
);

-- The collector's work: what was expunged on a day has at most this modseq.
create table expunged (
  account_id bigint not null,
  mailbox_id bigint not null,
  day        date not null,
  modseq     bigint not null,
  primary key (account_id, mailbox_id, day)
);
create index expunged_due on expunged (day, account_id, mailbox_id);

-- Objects that no row names any more, to be deleted after a delay.
create table doomed (
  account_id bigint not null,
  object     uuid not null,
  at         timestamptz not null default now(),
  primary key (account_id, object)
);
create index doomed_at on doomed (at);

-- Who works on what, until when; mailbox 0 is the account itself.
create table lease (
  account_id bigint not null,
  mailbox_id bigint not null,
  owner      bigint not null,
  until      timestamptz not null,
  primary key (account_id, mailbox_id)
);
