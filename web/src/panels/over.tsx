/** The main chart: a measure over time, stacked by what the reader chose. */

import { useMemo } from 'react';
import { useUsage } from '../answers';
import { shortened } from '../id';
import { amount, changed, exact, rate } from '../numbers';
import { change } from '../money';
import { useNow } from '../now';
import type { Question, UsageQuery } from '../questions';
import { filtersOf, rangeOf, show, widthOf, MEASURES, type Measure, type Split, type View } from '../view';
import { layers, palette, statusPalette } from './stack';
import { Panel } from './panel';
import { Stacked } from './stacked';

/** As many groups as colours that can be told apart. */
const TOP = 6;
const NAMES: Record<Measure, string> = { total_tokens: 'Tokens', cost: 'Cost', requests: 'Requests', errors: 'Errors' };
const SPLITS: Record<Split, string> = {
  model: 'model',
  status: 'status',
  user_id: 'user',
  api_key_id: 'API key',
  org_id: 'organization',
};

export function Over({ view, mine }: { view: View; mine: boolean }) {
  const now = useNow(60_000);
  const query: UsageQuery = {
    ...rangeOf(view),
    time_zone: view.zone,
    bucket_width: widthOf(view, now),
    group_by: [view.split],
    top: TOP,
    fill: 'zero',
    ...(view.compare && { compare: 'previous_period' as const }),
    ...filtersOf(view),
  };
  const { data: answer, isError, isPlaceholderData } = useUsage(view.org, query);
  const found = useMemo(() => {
    if (!answer) return [];
    const colors = view.split === 'status' ? statusPalette : palette;
    return layers(answer.data, view.split, view.measure, shortened, colors);
    // The rows stay the same as long as they say the same.
  }, [answer?.data, view.split, view.measure]);
  const question: Question = { ask: 'usage', org: view.org, query: { ...query, limit: 1000 } };
  const splits: Split[] = view.org === null ? ['model', 'org_id', 'status'] : ['model', ...(mine ? [] : ['user_id' as const]), 'api_key_id', 'status'];
  return (
    <Panel
      title={`${NAMES[view.measure]} over time`}
      question={question}
      size="large"
      isPending={!answer}
      isFailed={isError}
      isOld={isPlaceholderData}
      empty={answer && answer.totals.requests === 0 ? emptyOf(view) : null}
      aside={
        <label className="by">
          by
          <select value={view.split} onChange={(event) => show({ ...view, split: event.target.value as Split })}>
            {splits.map((split) => (
              <option key={split} value={split}>
                {SPLITS[split]}
              </option>
            ))}
          </select>
        </label>
      }
    >
      {answer && (
        <>
          <dl className="totals">
            {MEASURES.map((measure) => {
              const before = answer.comparison?.totals;
              const tenths = before && change(amount(answer.totals, measure), amount(before, measure));
              return (
                <div key={measure} data-total={measure}>
                  <dt>{NAMES[measure]}</dt>
                  <dd>
                    <data value={measure === 'cost' ? answer.totals.cost : answer.totals[measure]}>{exact(answer.totals, measure)}</data>
                    {measure === 'errors' && <span className="hint"> {rate(answer.totals.error_rate)}</span>}
                    {tenths !== undefined && before && (
                      <span className="hint" title={`${exact(before, measure)} in the range before`}>
                        {' '}
                        {tenths === null ? 'none before' : `${changed(tenths)} on the range before`}
                      </span>
                    )}
                  </dd>
                </div>
              );
            })}
          </dl>
          <Stacked
            view={view}
            answer={answer}
            layers={found}
            measure={view.measure}
            what={`${NAMES[view.measure]} by ${SPLITS[view.split]}`}
          />
        </>
      )}
    </Panel>
  );
}

/** Why there is nothing. */
export function emptyOf(view: View): string {
  return Object.keys(filtersOf(view)).length > 0
    ? 'Nothing matches these filters in this range.'
    : 'Nothing was used in this range.';
}
