/** What did not succeed, by status, over time. */

import { useMemo } from 'react';
import { useUsage } from '../answers';
import { useNow } from '../now';
import type { UsageQuery } from '../questions';
import { filtersOf, rangeOf, widthOf, type View } from '../view';
import { Panel } from './panel';
import { layers, statusPalette } from './stack';
import { Stacked } from './stacked';

/** Statuses are few; whatever is beyond them is one. */
const TOP = 20;

export function Errors({ view }: { view: View }) {
  const now = useNow(60_000);
  const query: UsageQuery = {
    ...rangeOf(view),
    time_zone: view.zone,
    bucket_width: widthOf(view, now),
    group_by: ['status'],
    top: TOP,
    fill: 'zero',
    ...filtersOf(view),
  };
  const { data: answer, isError, isPlaceholderData } = useUsage(view.org, query);
  const found = useMemo(
    () =>
      answer
        ? layers(answer.data, 'status', 'requests', (status) => status, statusPalette, (status) => status !== 'success')
        : [],
    [answer?.data],
  );
  return (
    <Panel
      title="Errors by status"
      question={{ ask: 'usage', org: view.org, query: { ...query, limit: 1000 } }}
      isPending={!answer}
      isFailed={isError}
      isOld={isPlaceholderData}
      empty={answer && found.length === 0 ? 'No request failed in this range.' : null}
    >
      {answer && found.length > 0 && (
        <Stacked view={view} answer={answer} layers={found} measure="requests" what="Requests that did not succeed, by status" />
      )}
    </Panel>
  );
}
