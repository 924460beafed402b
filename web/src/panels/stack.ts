/** A grouped answer as layers of a chart. */

import type { Bucket, GroupMeasures } from '@client';
import type { Series } from '../charts/plot';
import { amount, height } from '../numbers';
import type { Measure, Split } from '../view';

export interface Layer extends Series {
  /** The group; null for all others. */
  group: string | null;
  /** For each bucket; undefined: nothing happened. */
  measures: (GroupMeasures | undefined)[];
  total: bigint;
}

/** The groups of an answer, the largest first, all others last. */
export function layers(
  data: Bucket[],
  split: Split,
  measure: Measure,
  name: (group: string) => string,
  colors: (group: string | null, place: number) => string,
  wanted: (group: string | null) => boolean = () => true,
): Layer[] {
  const groups = new Map<string | null, (GroupMeasures | undefined)[]>();
  data.forEach(({ results }, place) => {
    for (const result of results) {
      const group = result[split] ?? null;
      if (!wanted(group)) continue;
      if (!groups.has(group)) groups.set(group, new Array(data.length).fill(undefined));
      groups.get(group)![place] = result;
    }
  });
  const found = [...groups].map(([group, measures]) => ({
    group,
    measures,
    label: group === null ? 'all others' : name(group),
    values: measures.map((one) => (one ? height(one, measure) : 0)),
    total: measures.reduce((sum, one) => sum + (one ? amount(one, measure) : 0n), 0n),
  }));
  const order = (a: { group: string | null; total: bigint }, b: { group: string | null; total: bigint }) =>
    Number(a.group === null) - Number(b.group === null) || (a.total < b.total ? 1 : a.total > b.total ? -1 : 0);
  return found
    .filter(({ group, total }) => group !== null || total > 0n)
    .sort(order)
    .map((layer, place) => ({ ...layer, color: colors(layer.group, place) }));
}

export const palette = (group: string | null, place: number) => (group === null ? 'c-other' : `c${(place % 6) + 1}`);
const STATUSES: Record<string, string> = { success: 'c1', error: 'c5', timeout: 'c3', throttled: 'c4', budget_exceeded: 'c2' };
export const statusPalette = (group: string | null) => (group === null ? 'c-other' : (STATUSES[group] ?? 'c6'));
