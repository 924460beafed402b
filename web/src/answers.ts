/** Questions as hooks: asked again every ten seconds, later where the API says so, not while nobody looks. */

import { QueryClient, keepPreviousData, useQuery, useQueryClient, type Query } from '@tanstack/react-query';
import { useCallback, useRef, useSyncExternalStore } from 'react';
import type { AnswerBase, UsageAnswer } from '@client';
import { Failure, list, usage, type List, type ListAnswer, type ListQuery, type UsageQuery } from './questions';

const REFRESH_MS = 10_000;
/** Those that asking again does not change. */
const FINAL = [400, 401, 403, 404];

/** When to ask again: a wait that the API asked for is waited, and a little more, not all at once. */
function interval(query: Query<never, Error>): number | false {
  const { error } = query.state;
  if (!(error instanceof Failure)) return REFRESH_MS;
  if (FINAL.includes(error.status)) return false;
  return error.retryAfter ? (error.retryAfter + Math.random()) * 1000 : REFRESH_MS;
}

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      retry: false,
      staleTime: REFRESH_MS / 2,
      refetchOnReconnect: true,
      refetchInterval: interval as never,
      // Asked even if the browser believes to be offline: it may be wrong about this host.
      networkMode: 'always',
      // The last answer stays until the next one is there: the layout does not jump.
      placeholderData: keepPreviousData as never,
    },
  },
});

export function useUsage(org: string | null, query: UsageQuery, enabled = true) {
  return useQuery<UsageAnswer>({
    queryKey: ['usage', org, query],
    queryFn: ({ signal }) => usage(org, query, signal),
    enabled,
  });
}

export function useList(ask: List, org: string | null, query: ListQuery, enabled = true) {
  return useQuery<ListAnswer>({
    queryKey: [ask, org, query],
    queryFn: ({ signal }) => list(ask, org, query, signal),
    enabled,
  });
}

/** What the whole page has to say: its worst failure, and how fresh the oldest number on it is. */
export interface Health {
  failure: Failure | null;
  /** When the next try is due, unix milliseconds. */
  retryAt: number | null;
  freshness: AnswerBase['freshness'] | null;
  isFetching: boolean;
}

/** The health of all questions that are on the screen. */
export function useHealth(): Health {
  const cache = useQueryClient().getQueryCache();
  const last = useRef<{ text: string; health: Health }>(null);
  const subscribe = useCallback((changed: () => void) => cache.subscribe(changed), [cache]);
  return useSyncExternalStore(subscribe, () => {
    const active = cache.getAll().filter((query) => query.isActive());
    const failed = active.filter(({ state }) => state.error instanceof Failure);
    const worst = failed.sort((a, b) => weight(b.state.error) - weight(a.state.error))[0];
    const failure = (worst?.state.error as Failure | undefined) ?? null;
    const known = active.map(({ state }) => (state.data as AnswerBase | undefined)?.freshness).filter((one) => !!one);
    const freshness = known.sort((a, b) => (a.counted_through ?? '').localeCompare(b.counted_through ?? ''))[0] ?? null;
    const wait = failure?.retryAfter ?? REFRESH_MS / 1000;
    const retryAt = worst && !FINAL.includes(failure!.status) ? worst.state.errorUpdatedAt + wait * 1000 : null;
    const health = { failure, retryAt, freshness, isFetching: active.some(({ state }) => state.fetchStatus === 'fetching') };
    const text = JSON.stringify([failure?.message, failure?.status, retryAt, freshness, health.isFetching]);
    if (last.current?.text !== text) last.current = { text, health };
    return last.current!.health;
  });
}

/** Those that say more about the rest of the page weigh more. */
function weight(error: Error | null): number {
  const { status } = error as Failure;
  return status === 0 ? 4 : status >= 500 ? 3 : status === 429 ? 2 : 1;
}
