/** What the page is about: range, calendar, measure and filters. All of it is in the URL. */

import { useId } from 'react';
import { widths } from '../calendar';
import { useNow } from '../now';
import type { Session } from '../session';
import { FILTERS, MEASURES, show, spanOf, type Filter, type Measure, type View } from '../view';
import { FilterPicker, FILTER_NAMES } from './filter-picker';
import { RangePicker } from './range-picker';
import { ZonePicker } from './zone-picker';
import { shortened } from '../id';

const MEASURE_NAMES: Record<Measure, string> = { total_tokens: 'Tokens', cost: 'Cost', requests: 'Requests', errors: 'Errors' };
const WIDTH_NAMES: Record<string, string> = {
  '1m': 'minutes',
  '15m': '15 minutes',
  '1h': 'hours',
  '1d': 'days',
  '1w': 'weeks',
  '1mo': 'months',
  all: 'one bucket',
};

export function Controls({ view, session }: { view: View; session: Session }) {
  const now = useNow(60_000);
  const id = useId();
  const possible = widths(spanOf(view, now), view.org === null);
  return (
    <section className="controls" aria-label="Range and filters">
      <div className="row">
        <RangePicker view={view} now={now} />
        <label className="field" htmlFor={`${id}-width`}>
          <span>in</span>
          <select
            id={`${id}-width`}
            value={view.width && possible.includes(view.width) ? view.width : ''}
            onChange={(event) => show({ ...view, width: (event.target.value || null) as View['width'] })}
          >
            <option value="">fitting steps</option>
            {possible.map((width) => (
              <option key={width} value={width}>
                {WIDTH_NAMES[width]}
              </option>
            ))}
          </select>
        </label>
        <ZonePicker view={view} />
      </div>
      <div className="row">
        <fieldset className="segments">
          <legend className="sr">Measure</legend>
          {MEASURES.map((measure) => (
            <label key={measure}>
              <input
                type="radio"
                name={`${id}-measure`}
                checked={view.measure === measure}
                onChange={() => show({ ...view, measure })}
              />
              <span>{MEASURE_NAMES[measure]}</span>
            </label>
          ))}
        </fieldset>
        <label className="check">
          <input type="checkbox" checked={view.compare} onChange={(event) => show({ ...view, compare: event.target.checked })} />
          Compare
        </label>
        <Filters view={view} session={session} />
      </div>
    </section>
  );
}

function Filters({ view, session }: { view: View; session: Session }) {
  const offered = FILTERS.filter((filter) => isOffered(filter, view, session));
  const set = (filter: Filter, values: string[]) => show({ ...view, filters: { ...view.filters, [filter]: values } });
  const given = offered.flatMap((filter) => view.filters[filter].map((value) => ({ filter, value })));
  const none = { model: [], user_id: [], api_key_id: [], status: [] };
  return (
    <div className="filters">
      {offered.map((filter) => (
        <FilterPicker key={filter} filter={filter} view={view} onChange={(values) => set(filter, values)} />
      ))}
      {given.map(({ filter, value }) => (
        <button
          key={filter + value}
          type="button"
          className="chip"
          title={value}
          onClick={() => set(filter, view.filters[filter].filter((other) => other !== value))}
          aria-label={`Remove filter: ${FILTER_NAMES[filter]} ${value}`}
        >
          <span className="muted">{FILTER_NAMES[filter]}</span> <bdi>{shortened(value)}</bdi> <span aria-hidden="true">×</span>
        </button>
      ))}
      {given.length > 1 && (
        <button type="button" className="link" onClick={() => show({ ...view, filters: none })}>
          Clear
        </button>
      )}
    </div>
  );
}

/** By user or key the whole system has exact answers for whole UTC days alone. */
function isOffered(filter: Filter, view: View, session: Session): boolean {
  if (filter === 'user_id') return view.org !== null && session.role !== 'org_user';
  return filter !== 'api_key_id' || view.org !== null;
}
