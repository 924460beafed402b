/** What is shown, all of it in the URL's query: a view can be shared, and Back works. */

import { useMemo, useSyncExternalStore } from 'react';
import type { BucketWidth } from '@client';
import { bestWidth, isZone, month, period, widths, type Span } from './calendar';

export const PERIODS = ['last_24h', 'last_7d', 'last_30d', 'this_month', 'last_month'] as const;
export type Period = (typeof PERIODS)[number];
export const MEASURES = ['total_tokens', 'cost', 'requests', 'errors'] as const;
export type Measure = (typeof MEASURES)[number];
export const FILTERS = ['model', 'user_id', 'api_key_id', 'status'] as const;
export type Filter = (typeof FILTERS)[number];
/** What the main chart is stacked by. */
export const SPLITS = ['model', 'status', 'user_id', 'api_key_id', 'org_id'] as const;
export type Split = (typeof SPLITS)[number];

export interface View {
  /** The organization; null for the whole system. */
  org: string | null;
  /** A period's name, a month (`2026-11`), or `custom` with `from` and `to`. */
  range: string;
  from: string | null;
  to: string | null;
  zone: string;
  /** null: what the chart shows best. */
  width: BucketWidth | null;
  measure: Measure;
  split: Split;
  compare: boolean;
  filters: Record<Filter, string[]>;
}

const MONTH = /^\d{4}-(0[1-9]|1[0-2])$/;
const WIDTHS: BucketWidth[] = ['1m', '15m', '1h', '1d', '1w', '1mo', 'all'];

const oneOf = <T extends string>(values: readonly T[], value: string | null, otherwise: T): T =>
  values.includes(value as T) ? (value as T) : otherwise;
const instant = (text: string | null) =>
  text !== null && !Number.isNaN(Date.parse(text)) ? new Date(text).toISOString().replace('.000Z', 'Z') : null;

/** Reads a URL's query. What it does not understand is as if it were not there. */
export function parse(search: string, browserZone: string): View {
  const given = new URLSearchParams(search);
  const zone = given.get('tz') ?? browserZone;
  const [from, to] = [instant(given.get('from')), instant(given.get('to'))];
  const isCustom = from !== null && to !== null && from < to;
  const range = given.get('range') ?? '';
  const named = MONTH.test(range) ? range : oneOf(PERIODS, range, 'last_30d');
  return {
    org: given.get('org'),
    range: isCustom ? 'custom' : named,
    from: isCustom ? from : null,
    to: isCustom ? to : null,
    zone: isZone(zone) ? zone : 'UTC',
    width: WIDTHS.find((width) => width === given.get('width')) ?? null,
    measure: oneOf(MEASURES, given.get('measure'), 'total_tokens'),
    split: oneOf(SPLITS, given.get('by'), 'model'),
    compare: given.get('compare') === '1',
    filters: {
      model: given.getAll('model'),
      user_id: given.getAll('user_id'),
      api_key_id: given.getAll('api_key_id'),
      status: given.getAll('status'),
    },
  };
}

/** Writes it again; the time zone always, so that a reader elsewhere sees the same days. */
export function write(view: View): string {
  const query = new URLSearchParams();
  if (view.org) query.set('org', view.org);
  if (view.range === 'custom') {
    query.set('from', view.from!);
    query.set('to', view.to!);
  } else if (view.range !== 'last_30d') query.set('range', view.range);
  query.set('tz', view.zone);
  if (view.width) query.set('width', view.width);
  if (view.measure !== 'total_tokens') query.set('measure', view.measure);
  if (view.split !== 'model') query.set('by', view.split);
  if (view.compare) query.set('compare', '1');
  for (const filter of FILTERS) view.filters[filter].forEach((value) => query.append(filter, value));
  return `?${query}`;
}

/** The range that a view is about. */
export function spanOf(view: View, now: Date): Span {
  if (view.range === 'custom') return { start: new Date(view.from!), end: new Date(view.to!) };
  return MONTH.test(view.range) ? month(view.range, view.zone) : period(view.range, now, view.zone);
}

/** The range in the API's words. */
export function rangeOf(view: View): { period: Period } | { start_time: string; end_time: string } {
  if (view.range !== 'custom' && !MONTH.test(view.range)) return { period: view.range as Period };
  const { start, end } = spanOf(view, new Date(0));
  const text = (at: Date) => at.toISOString().replace('.000Z', 'Z');
  return { start_time: text(start), end_time: text(end) };
}

/** The width of its buckets: the chosen one where the contract allows it. */
export function widthOf(view: View, now: Date): BucketWidth {
  const span = spanOf(view, now);
  const allowed = widths(span, view.org === null);
  return view.width && allowed.includes(view.width) ? view.width : bestWidth(span, view.org === null);
}

/** What is filtered by, without what is not. */
export function filtersOf(view: View): Partial<Record<Filter, string[]>> {
  return Object.fromEntries(Object.entries(view.filters).filter(([, values]) => values.length > 0));
}

const browserZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
const CHANGED = 'usage-view-changed';
const subscribe = (listener: () => void) => {
  addEventListener('popstate', listener);
  addEventListener(CHANGED, listener);
  return () => {
    removeEventListener('popstate', listener);
    removeEventListener(CHANGED, listener);
  };
};

/** The view that the URL asks for. */
export function useView(): View {
  const search = useSyncExternalStore(subscribe, () => location.search);
  return useMemo(() => parse(search, browserZone()), [search]);
}

/** Goes to another view; `replace` leaves no step for Back. */
export function show(view: View, replace = false) {
  const query = write(view);
  if (query === location.search) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', location.pathname + query);
  dispatchEvent(new Event(CHANGED));
}
