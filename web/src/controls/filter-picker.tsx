/** What can be filtered by: the values that the data holds in the range, with their tokens. */

import { useId, useState } from 'react';
import { useList, useUsage } from '../answers';
import { shortened } from '../id';
import { brief } from '../numbers';
import { KEY_OF, type List } from '../questions';
import { rangeOf, type Filter, type View } from '../view';
import { Popover } from './popover';

export const FILTER_NAMES: Record<Filter, string> = { model: 'Model', user_id: 'User', api_key_id: 'API key', status: 'Status' };
const LISTS: Record<Exclude<Filter, 'status'>, List> = { model: 'models', user_id: 'users', api_key_id: 'keys' };
/** What the API takes of one filter. */
const MOST_VALUES = 100;
/** What a box shows at once; searching finds the others. */
const MOST_SHOWN = 50;

export function FilterPicker({ filter, view, onChange }: { filter: Filter; view: View; onChange: (values: string[]) => void }) {
  const given = view.filters[filter];
  return (
    <Popover label={given.length > 0 ? `${FILTER_NAMES[filter]} (${given.length})` : FILTER_NAMES[filter]} active={given.length > 0}>
      {() => <Box filter={filter} view={view} onChange={onChange} />}
    </Popover>
  );
}

interface Option {
  value: string;
  tokens: number;
}

/** All values of the range, whatever is filtered now. */
function useOptions(filter: Filter, view: View): Option[] | undefined {
  const query = { ...rangeOf(view), time_zone: view.zone };
  const ask = filter === 'status' ? 'models' : LISTS[filter];
  const lines = useList(ask, view.org, { ...query, limit: 1000 }, filter !== 'status').data?.data;
  const statuses = useUsage(view.org, { ...query, bucket_width: 'all', group_by: ['status'] }, filter === 'status').data;
  if (filter === 'status') {
    return statuses?.data.flatMap(({ results }) => results.map((one) => ({ value: one.status ?? '', tokens: one.requests })));
  }
  return lines?.flatMap((line) => {
    const value = line[KEY_OF[ask]];
    return value ? [{ value, tokens: line.total_tokens }] : [];
  });
}

function Box({ filter, view, onChange }: { filter: Filter; view: View; onChange: (values: string[]) => void }) {
  const id = useId();
  const [search, setSearch] = useState('');
  const options = useOptions(filter, view);
  const given = view.filters[filter];
  const words = search.trim().toLowerCase();
  const known = options ?? [];
  const absent = given.filter((value) => !known.some((one) => one.value === value)).map((value) => ({ value, tokens: 0 }));
  const found = [...absent, ...known].filter(({ value }) => value.toLowerCase().includes(words));
  const toggle = (value: string) =>
    onChange(given.includes(value) ? given.filter((other) => other !== value) : [...given, value].slice(-MOST_VALUES));
  const unit = filter === 'status' ? 'requests' : 'tokens';
  return (
    <>
      <label className="sr" htmlFor={id}>
        Search {FILTER_NAMES[filter]}
      </label>
      <input id={id} type="search" placeholder="Search" value={search} autoFocus onChange={(event) => setSearch(event.target.value)} />
      <ul className="options">
        {found.slice(0, MOST_SHOWN).map(({ value, tokens }) => (
          <li key={value}>
            <label title={value}>
              <input type="checkbox" checked={given.includes(value)} onChange={() => toggle(value)} />
              <bdi>{shortened(value)}</bdi>
              <span className="muted">
                {brief(tokens)} {unit}
              </span>
            </label>
          </li>
        ))}
      </ul>
      {!options && <p className="hint">Loading</p>}
      {options && found.length === 0 && <p className="hint">Nothing of that name in this range.</p>}
      {found.length > MOST_SHOWN && <p className="hint">{found.length - MOST_SHOWN} more: search for them.</p>}
    </>
  );
}
