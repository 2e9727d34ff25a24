/** Paths of the wire, as `gkt_core/wire/paths.py` has them. */

export const AUTHORITY = "/v1/authority";
export const RUNS = "/v1/runs";

export function run(runId: string): string {
  return `${RUNS}/${runId}`;
}

/** What follows the path of a run. */
export const artifact = (name: string): string => `/artifacts/${name}`;
export const modelTemplate = "/model/template";
export const client = (clientId: string): string => `/clients/${clientId}`;
export const task = (clientId: string): string => `${client(clientId)}/task`;
export const credential = (clientId: string): string => `${client(clientId)}/credential`;
export const shards = (round: number, clientId: string): string => `/rounds/${round}${client(clientId)}/shards`;
export const shard = (round: number, clientId: string, split: string, index: number): string =>
  `${shards(round, clientId)}/${split}/${index}`;
export const report = (round: number, clientId: string): string => `/rounds/${round}${client(clientId)}/report`;
export const softLabels = (round: number, clientId: string): string =>
  `/rounds/${round}${client(clientId)}/soft-labels`;
